"""The simulated Claude API. `simulator` shows the way of a request, `answers` the rules.

Faults for `ClaudeSimulator.fail_next` are in `llm_integrations.simulators.faults` and, those that
only Claude has, in `errors` here; switches for all requests are in `Behaviour`.
"""

from llm_integrations.simulators.anthropic.behaviour import Behaviour
from llm_integrations.simulators.anthropic.bill import Charge, price_pusd
from llm_integrations.simulators.anthropic.buckets import Limits
from llm_integrations.simulators.anthropic.simulator import ClaudeSimulator
from llm_integrations.simulators.anthropic.wire import RecordedRequest

__all__ = ["Behaviour", "Charge", "ClaudeSimulator", "Limits", "RecordedRequest", "price_pusd"]
