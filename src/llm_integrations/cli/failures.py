"""What went wrong, in one line, and the exit code that says whose turn it is.

In: an exception that a command let through. Out: "what, where, what next" on stderr, and 1 when the
work failed, 2 when the settings, the installation or the command are wrong. Bugs are not caught
here: they end in a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from llm_integrations.errors import (
    APIError,
    AuthFailed,
    ConfigError,
    IntegrationError,
    NeedsConsent,
)

__all__ = ["FAILED", "INTERRUPTED", "OK", "WRONG", "complain", "report"]

OK: Final = 0
FAILED: Final = 1
WRONG: Final = 2
INTERRUPTED: Final = 130

_NAME: Final = "llm-integrations"
_EXTRA_OF_COMMAND: Final = {
    "costs": "service",
    "database": "service",
    "deliveries": "service",
    "demo": "demo",
    "gateway": "gateway",
    "pause": "service",
    "purge": "service",
    "resume": "service",
    "serve": "service",
    "simulate": "simulators",
}
_CREDENTIALS: Final = {
    "anthropic": "ANTHROPIC_API_KEY (setting claude.api_key)",
    "jira": "JIRA_EMAIL and JIRA_API_TOKEN, or JIRA_PAT (settings sites.*)",
}


def complain(message: str) -> None:
    """Write one line to stderr."""
    line = " ".join(message.split())
    print(f"{_NAME}: {''.join(each for each in line if each.isprintable())}", file=sys.stderr)


def report(error: ImportError | IntegrationError | OSError, words: Sequence[str]) -> int:
    """Say what is wrong and return the exit code; an error that is a bug is raised again."""
    if isinstance(error, ImportError):
        return _report_missing(error, words)
    why = error.detail if isinstance(error, APIError) else ""
    complain(f"{error}{': ' if why else ''}{why}{_next_step(error)}")
    return WRONG if isinstance(error, ConfigError | AuthFailed) else FAILED


def _next_step(error: Exception) -> str:
    """Return what to do about credentials that are not taken."""
    if not isinstance(error, AuthFailed) or isinstance(error, NeedsConsent):
        return ""  # a consent is no setting: its message says what to run
    return f"; check {_CREDENTIALS.get(error.vendor, 'the credentials')}"


def _report_missing(error: ImportError, words: Sequence[str]) -> int:
    """Name the extra that holds what could not be imported."""
    missing = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or missing in {"", "llm_integrations"}:
        raise error
    extra = "cli"
    if missing not in {"cyclopts", "rich"}:
        extra = next(
            (_EXTRA_OF_COMMAND[word] for word in words[:1] if word in _EXTRA_OF_COMMAND), ""
        )
    if not extra:
        raise error
    complain(f"{missing} is not installed; install it: pip install '{_NAME}[{extra}]'")
    return WRONG
