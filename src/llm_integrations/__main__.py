"""`python -m llm_integrations`: the same as the command `llm-integrations`."""

from llm_integrations.cli import main

if __name__ == "__main__":
    main()
