"""The two services as they answer on the wire, for running and testing without keys.

`ClaudeSimulator` and `JiraSimulator` are loopback HTTP servers written from the API facts alone.
`faults` has what can go wrong on the way, as values for their `fail_next`; what each service itself
refuses with is in `anthropic.errors` and `jira.errors`.
This room imports nothing of ours from outside itself, so that a wrong field name in a client
cannot agree with itself here. Either name is imported when first asked for: using one simulator
does not load the other.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from llm_integrations.simulators import faults

if TYPE_CHECKING:
    from llm_integrations.simulators.anthropic import ClaudeSimulator
    from llm_integrations.simulators.jira import JiraSimulator

__all__ = ["ClaudeSimulator", "JiraSimulator", "faults"]


def __getattr__(name: str) -> object:
    """Import the simulator that is asked for, and only that one.

    Raises:
        ImportError: what it needs is not installed; the message names the extra.
    """
    room = {"ClaudeSimulator": "anthropic", "JiraSimulator": "jira"}.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{room}"), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install 'llm-integrations[simulators]'",
            name=error.name,
        ) from error
