"""Where the CPU time of a round went: shares by place, for targets that were missed.

In: a round. Out: per place (a room and module of ours, a library, `asyncio`, `socket`, the rest of
the standard library) the share of the process's CPU time that was spent in its own functions. A
profiler makes short functions look dearer than they are: read it for proportions, not for figures.
"""

from __future__ import annotations

import cProfile
import re
import time
from collections import defaultdict
from typing import Final

from bench.processes import Round

__all__ = ["place_of", "shares"]

OURS: Final = re.compile(r"/llm_integrations/([\w/]+)\.py$")
LIBRARY: Final = re.compile(r"/site-packages/(\w+)")
BUILT_INS: Final = {
    "_socket.socket": "socket",
    "select.epoll": "socket",
    "sqlite3": "sqlite3",
    "msgspec": "msgspec",
    "_asyncio": "asyncio",
    "aiohttp": "aiohttp",
}


async def shares(one_round: Round) -> dict[str, float]:
    """Run a round under a profiler; return the share of each place, the largest first."""
    profiler = cProfile.Profile(time.process_time)
    profiler.enable()
    try:
        await one_round()
    finally:
        profiler.disable()
    spent: defaultdict[str, float] = defaultdict(float)
    for entry in profiler.getstats():
        code = entry.code
        place = place_of("", code) if isinstance(code, str) else place_of(code.co_filename, "")
        spent[place] += entry.inlinetime
    whole = sum(spent.values())
    dearest = sorted(spent, key=spent.__getitem__, reverse=True)
    return {place: spent[place] / whole for place in dearest}


def place_of(filename: str, built_in: str) -> str:
    """Name the place of a function by its file, or of one written in C by its name."""
    if built_in:
        return next((place for part, place in BUILT_INS.items() if part in built_in), "python")
    if found := OURS.search(filename):
        return found[1].removesuffix("/__init__")
    if found := LIBRARY.search(filename):
        return found[1]
    return "asyncio" if re.search(r"/(asyncio/\w+|selectors)\.py$", filename) else "python"
