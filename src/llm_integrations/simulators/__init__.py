"""The two services as they answer on the wire, for running and testing without keys.

`ClaudeSimulator` and `JiraSimulator` are loopback HTTP servers written from the API facts alone.
This room imports nothing of ours from outside itself, so that a wrong field name in a client
cannot agree with itself here. Either name is imported when first asked for: using one simulator
does not load the other.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_integrations.simulators.anthropic import ClaudeSimulator
    from llm_integrations.simulators.jira import JiraSimulator

__all__ = ["ClaudeSimulator", "JiraSimulator"]


def __getattr__(name: str) -> object:
    """Import the simulator that is asked for, and only that one.

    Raises:
        ImportError: what it needs is not installed; the message names the extra.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = {"ClaudeSimulator": "anthropic", "JiraSimulator": "jira"}[name]
    try:
        return getattr(import_module(f"{__name__}.{room}"), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install 'llm-integrations[simulators]'",
            name=error.name,
        ) from error
