"""The shape of a benchmark: sides that are measured in turn, and what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from bench.figures import Target
from bench.processes import Options

__all__ = ["Benchmark", "Need", "Side"]

Need: TypeAlias = Literal["loopback", "postgres"]


@dataclass(frozen=True, slots=True)
class Side:
    """A function to run in a process of its own, and what it is told.

    Attributes:
        environment: "ours", or that of the "peers" which cannot share it (`bench.peers`). Where
            that cannot be made, the side is left out and the others are measured.
    """

    run: str
    options: Options = field(default_factory=dict)
    environment: Literal["ours", "peers"] = "ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Sides that are measured in turn, and what is asked of them.

    Attributes:
        needs: "loopback" gives each side `base_url`, "postgres" gives each side `dsn`.
        rounds: at most so many of each start, for what takes long.
        starts: so often each side is started anew: where a program lies in memory differs, and with
            it what a small difference between two of them comes to.
        timeout_s: for one round of one side.
    """

    name: str
    about: str
    sides: Mapping[str, Side]
    targets: tuple[Target, ...]
    needs: Need | None = None
    rounds: int = 5
    starts: int = 1
    timeout_s: float = 60.0
