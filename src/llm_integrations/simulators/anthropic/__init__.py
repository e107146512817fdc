"""The simulated Claude API. `simulator` shows the way of a request, `answers` the rules.

What a caller may meet, and the one way to meet it:

| trap | how |
|---|---|
| an error of any kind, once or `times` | `simulator.fail_next(errors.rate_limited(5))`, `errors` |
| lost answers: reset, cut, late | `fail_next(faults.Reset(after_work=True))`, `faults` |
| a stream that errs, is cut, pings or is silent | `fail_next(errors.StreamCut(after_bytes=9))` |
| what a model says: refusals, pauses, tools | marks in the text: `answers`, `server_tools` |
| bytes, events and usage in odd forms | `Behaviour(stream_chunks="byte", sparse_usage=True)` |
| everything that is not known yet | `Behaviour(tomorrow=True)` |
| batches that take long, or end badly | `Behaviour(batch_s=3600, batch_results={"a": "expired"})` |
| limits and spending caps that are really reached | `limits=`, `Behaviour(tier_cap_pusd=1)` |
| caches, files, tokens and batches that expire | move `simulator.clock_offset_s` |
"""

from llm_integrations.simulators.anthropic.behaviour import Behaviour
from llm_integrations.simulators.anthropic.bill import Charge, price_pusd
from llm_integrations.simulators.anthropic.buckets import Limits
from llm_integrations.simulators.anthropic.simulator import ClaudeSimulator
from llm_integrations.simulators.anthropic.wire import RecordedRequest

__all__ = ["Behaviour", "Charge", "ClaudeSimulator", "Limits", "RecordedRequest", "price_pusd"]
