"""`jira …`: the Jira client from a terminal. Needs the `JIRA_*` environment and no database.

Each command builds one client from the environment, calls it and prints. Text of tickets is
printed as it is, never read as markup, and cannot move the cursor.
"""

from llm_integrations.cli.jira import exporting, files, hooks, issues, login

__all__ = ["exporting", "files", "hooks", "issues", "login"]
