"""Jira and Claude, joined: two typed async clients and the service between them.

Nothing is imported here; take what you need from the room that has it:

- `llm_integrations.jira`: `JiraClient`, webhooks, ADF and JQL
- `llm_integrations.anthropic`: `AnthropicClient`, streams, prices and token estimates
- `llm_integrations.governance`: `Governor`: limits, budgets and an exact ledger under a client
- `llm_integrations.service`: `App` and what handlers are written with
- `llm_integrations.simulators`: both services, offline, for running and testing without keys
- `llm_integrations.errors`: every exception, drawn as a tree
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """Read the version from the installed metadata, for those who ask."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415 - 20 ms that a client need not pay

    return version("llm-integrations")
