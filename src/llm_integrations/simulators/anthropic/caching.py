"""The prompt cache: which part of a prompt is read, written or plain input.

Rules (https://platform.claude.com/docs/en/build-with-claude/prompt-caching):
1. A breakpoint stores the whole prefix up to it, for 5 minutes or 1 hour from the start of the
   request; a hit renews it.
2. A breakpoint finds the longest stored prefix that ends at it or up to 20 blocks before it.
3. A prefix shorter than the model's minimum is silently not cached.
4. Tokens after the last breakpoint are plain input.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from llm_integrations.simulators.anthropic.prompt import Prompt, Segment

__all__ = ["InputCounts", "PromptCache"]

_TTL_S: Final = {"5m": 300.0, "1h": 3_600.0}
_LOOK_BACK: Final = 20
_SWEEP_ABOVE: Final = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class InputCounts:
    """The prompt's tokens by what is charged for them."""

    plain: int
    read: int = 0
    written_5m: int = 0
    written_1h: int = 0

    @property
    def written(self) -> int:
        """Tokens stored, for either time."""
        return self.written_5m + self.written_1h

    @property
    def uncached(self) -> int:
        """Tokens that count against the input limit: all but those read from the cache."""
        return self.plain + self.written


@dataclass(frozen=True, slots=True)
class _Prefix:
    """The prompt up to the end of one segment."""

    key: bytes
    tokens: int
    ttl: str | None


class PromptCache:
    """Stored prefixes and when each is forgotten."""

    def __init__(self) -> None:
        """Start with nothing stored."""
        self._expires: dict[bytes, tuple[float, str]] = {}

    def count(self, prompt: Prompt, *, scope: str, minimum: int, now: float) -> InputCounts:
        """Count a prompt and store what its breakpoints ask for.

        `scope` names all else that must be equal for a hit: the model, its settings.
        """
        prefixes = _prefixes(prompt.segments, scope)
        marked = [
            at for at, prefix in enumerate(prefixes) if prefix.ttl and prefix.tokens >= minimum
        ]
        self._sweep(now)
        hit = self._longest_hit(prefixes, marked, now)
        read = 0
        if hit is not None:
            read = prefixes[hit].tokens
            _, ttl = self._expires[prefixes[hit].key]
            self._expires[prefixes[hit].key] = (now + _TTL_S[ttl], ttl)
        written = {"5m": 0, "1h": 0}
        done = read
        for at in marked:
            prefix = prefixes[at]
            ttl = prefix.ttl or "5m"
            written[ttl] += max(0, prefix.tokens - done)
            done = max(done, prefix.tokens)
            self._expires[prefix.key] = (now + _TTL_S[ttl], ttl)
        return InputCounts(
            plain=prompt.tokens - done,
            read=read,
            written_5m=written["5m"],
            written_1h=written["1h"],
        )

    def _sweep(self, now: float) -> None:
        if len(self._expires) > _SWEEP_ABOVE:
            self._expires = {key: kept for key, kept in self._expires.items() if kept[0] > now}

    def _longest_hit(
        self, prefixes: Sequence[_Prefix], marked: Sequence[int], now: float
    ) -> int | None:
        for at in reversed(marked):
            for candidate in range(at, max(-1, at - _LOOK_BACK - 1), -1):
                stored = self._expires.get(prefixes[candidate].key)
                if stored is not None and stored[0] > now:
                    return candidate
        return None


def _prefixes(segments: Sequence[Segment], scope: str) -> list[_Prefix]:
    digest = hashlib.blake2b(scope.encode(), digest_size=16)
    tokens = 0
    found = []
    for segment in segments:
        digest.update(b"\x00" + segment.key.encode("utf-8", "surrogatepass"))
        tokens += segment.tokens
        found.append(_Prefix(digest.digest(), tokens, segment.ttl))
    return found
