"""The command line: parse, call, print.

In: the words after `llm-integrations`, and the environment. Out: text for people or `--json` on
stdout, one line on stderr when something is wrong, and an exit code: 0 done, 1 failed, 2 settings
or usage, 130 interrupted. What a command does is done by the rooms below; each is imported by the
command that needs it, so that `--help` starts at once and a missing extra is one line.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command this process was started with, and exit with its code."""
    words = sys.argv[1:]
    try:
        from llm_integrations.cli.program import run
    except ModuleNotFoundError as error:
        from llm_integrations.cli.failures import report

        sys.exit(report(error, words))
    sys.exit(run(words))
