"""The two services as they answer on the wire, for running and testing without keys.

`ClaudeSimulator` and `JiraSimulator` are loopback HTTP servers written from the API facts alone.
This room imports nothing of ours from outside itself, so that a wrong field name in a client
cannot agree with itself here. Either name is imported when first asked for: using one simulator
does not load the other.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_integrations.simulators.anthropic import ClaudeSimulator
    from llm_integrations.simulators.jira import JiraSimulator

__all__ = ["ClaudeSimulator", "JiraSimulator"]


def __getattr__(name: str) -> object:
    """Import the simulator that is asked for, and only that one."""
    if name == "ClaudeSimulator":
        from llm_integrations.simulators.anthropic import ClaudeSimulator  # noqa: PLC0415

        return ClaudeSimulator
    if name == "JiraSimulator":
        from llm_integrations.simulators.jira import JiraSimulator  # noqa: PLC0415

        return JiraSimulator
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
