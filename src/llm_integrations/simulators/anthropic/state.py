"""What the routes of one simulator share: its time, ids, counts, limits, files and bill.

Knows nothing of HTTP. A route reads and changes this and answers with a reply.
"""

import hashlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from llm_integrations.simulators.anthropic.behaviour import Behaviour
from llm_integrations.simulators.anthropic.bill import Charge, price_pusd
from llm_integrations.simulators.anthropic.buckets import Limits, RateLimits
from llm_integrations.simulators.anthropic.caching import PromptCache
from llm_integrations.simulators.anthropic.errors import ApiError
from llm_integrations.simulators.anthropic.files import FileStore, StoredFile
from llm_integrations.simulators.anthropic.tokens import TokenRule

__all__ = ["State"]

_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ID_LETTERS: Final = 22


class State:
    """Everything a simulated organization has.

    Attributes:
        seed: chooses token counts, latencies, ids and the order of batch results.
        gullible: whether instructions injected into a prompt are obeyed.
        clock_offset_s: added to the real time.
        behaviour: the switches in force.
        charges: every line of the bill, oldest first.
        billed_pusd: their sum.
    """

    def __init__(
        self,
        *,
        seed: int,
        limits: Limits | Mapping[str, Limits] | None,
        clock_offset_s: float,
        gullible: bool,
        behaviour: Behaviour,
    ) -> None:
        """Start with an empty cache, full buckets, no files and no charges."""
        self.seed = seed
        self.gullible = gullible
        self.clock_offset_s = clock_offset_s
        self.behaviour = behaviour
        self.charges: list[Charge] = []
        self.billed_pusd = 0
        self.limits = RateLimits(limits)
        self.tokens = TokenRule(seed)
        self.cache = PromptCache()
        self.files = FileStore()
        self._ids = 0

    def seconds(self) -> float:
        """Return the simulator's time in seconds since 1970."""
        return time.time() + self.clock_offset_s

    def now(self) -> datetime:
        """Return the simulator's time."""
        return datetime.fromtimestamp(self.seconds(), UTC)

    def new_id(self, prefix: str) -> str:
        """Return the next id; with the same seed, the same ids come in the same order."""
        self._ids += 1
        digest = hashlib.blake2b(f"{self.seed}:{self._ids}".encode(), digest_size=16).digest()
        number = int.from_bytes(digest, "big")
        letters = ""
        for _ in range(_ID_LETTERS):
            number, at = divmod(number, len(_BASE58))
            letters += _BASE58[at]
        return prefix + letters

    def check_spending(self) -> None:
        """Raise the refusal of an organization that has spent what it may."""
        tier, own = self.behaviour.tier_cap_pusd, self.behaviour.own_cap_pusd
        if own is not None and self.billed_pusd >= own:
            raise ApiError(400, "You have reached your specified API usage limits.")
        if tier is not None and self.billed_pusd >= tier:
            raise ApiError(
                429,
                "Your organization has reached its monthly spend limit.",
                error_code="enforced_spend_limit_reached",
                headers={"x-should-retry": "false"},
            )

    def make_file(self, name: str, content: bytes) -> str:
        """Keep a file that a tool has made; return its id."""
        file = StoredFile(
            id=self.new_id("file_011"),
            name=name,
            mime_type="text/plain",
            content=content,
            created_at=self.now(),
            downloadable=True,
        )
        self.files.add(
            file,
            max_bytes=self.behaviour.max_file_bytes,
            max_storage_bytes=self.behaviour.max_storage_bytes,
        )
        return file.id

    def charge(
        self,
        request_id: str,
        model: str,
        usage: Mapping[str, Any],
        *,
        at: datetime,
        billed: bool,
    ) -> int:
        """Write a line of the bill; return what it costs in pico-USD, 0 where it is not billed."""
        pusd = price_pusd(usage, model, at=at) if billed else 0
        self.billed_pusd += pusd
        self.charges.append(
            Charge(at=at, request_id=request_id, model=model, usage=usage, pusd=pusd)
        )
        return pusd
