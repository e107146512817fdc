"""What one process asked for, was charged and told people since it started; no I/O.

For metrics: the ledger has it in full, and of all processes. Names of models come from anywhere, so
they are few and plain here: what is neither is "other".
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

__all__ = ["OTHER", "Tally"]

OTHER: Final = "other"
_MODELS_CAP: Final = 50
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,63}")


class Tally:
    """Sums by (model, state), and alerts by (budget, percent).

    Attributes:
        alerts: how often this process, of all, was the one to tell.
    """

    __slots__ = ("_models", "_sums", "alerts")

    def __init__(self) -> None:
        self._models: set[str] = set()
        self._sums: dict[tuple[str, str], tuple[int, int]] = {}
        self.alerts: Counter[tuple[str, int]] = Counter()

    @property
    def attempts(self) -> Counter[tuple[str, str]]:
        """How many."""
        return Counter({key: count for key, (count, _) in self._sums.items()})

    @property
    def charged_pusd(self) -> Counter[tuple[str, str]]:
        """What they count as: their cost, or the whole hold where that is not known."""
        return Counter({key: pusd for key, (_, pusd) in self._sums.items()})

    def add(self, model: str, state: str, charged_pusd: int = 0) -> None:
        """Count one attempt."""
        key = model if model in self._models else self._named(model), state
        count, sum_pusd = self._sums.get(key, (0, 0))
        self._sums[key] = count + 1, sum_pusd + charged_pusd

    def _named(self, model: str) -> str:
        if len(self._models) >= _MODELS_CAP or not _PLAIN.fullmatch(model):
            return OTHER
        self._models.add(model)
        return model
