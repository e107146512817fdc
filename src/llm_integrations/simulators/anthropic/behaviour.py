"""How a simulator behaves where the real service leaves it open: one value, exchangeable any time.

Give it to `ClaudeSimulator(behaviour=...)`, or set `simulator.behaviour` in the middle of a test.
What goes wrong with one request is no behaviour but a fault (`ClaudeSimulator.fail_next`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from llm_integrations.simulators.anthropic.chunks import Chunks, Style

__all__ = ["Behaviour"]

_MB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """The switches of a simulator. The defaults are those of a fast, well-behaved service.

    Attributes:
        stream_pause_ms: the pause after each chunk of a stream.
        stream_chunks: where streams are cut for the network (`chunks.chunked`).
        stream_style: how events are written down (`chunks.styled`).
        message_deltas: how many `message_delta` a stream has. Only the last is the truth: those
            before it count half of the output and give no reason to stop.
        goes_on: whether the model, and the bill, goes on when a stream breaks off or is left.
        sparse_usage: whether the last `message_delta` leaves out, or sends as null, the counters
            that are as they were in `message_start`.
        tomorrow: whether everything says something that nobody knows yet (`tomorrow`).
        batch_s: how long a batch takes from its creation to its end. Its requests are done one
            after the other, evenly; what is not done after 24 hours expires.
        batch_poll_after_s: the `retry-after` on a batch that has not ended; None sends none.
        batch_results: how requests of a batch end that would have succeeded, by `custom_id`:
            `errored`, `canceled` or `expired`.
        token_life_s: how long a token of the federation endpoint is good for.
        tier_cap_pusd: the bill at which the tier's spend limit is reached (429, no retry-after).
        own_cap_pusd: the bill at which the limit the organization set itself is reached (400).
        report_lag_s: for how long the usage and cost reports do not know an answer yet.
        max_file_bytes: the largest file taken.
        max_storage_bytes: what all files together may take.
    """

    stream_pause_ms: float = 0.0
    stream_chunks: Chunks = "event"
    stream_style: Style = "plain"
    message_deltas: int = 1
    goes_on: bool = False
    sparse_usage: bool = False
    tomorrow: bool = False
    batch_s: float = 0.2
    batch_poll_after_s: int | None = None
    batch_results: Mapping[str, str] = field(default_factory=dict)
    token_life_s: int = 600
    tier_cap_pusd: int | None = None
    own_cap_pusd: int | None = None
    report_lag_s: float = 0.0
    max_file_bytes: int = 500 * _MB
    max_storage_bytes: int = 1024 * 1024 * _MB
