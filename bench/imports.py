"""What an import costs, over a bare interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

from bench.processes import Round

__all__ = ["importing"]


def seconds(code: str, bytecode: str) -> float:
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environ)
    return time.perf_counter() - before


@asynccontextmanager
async def importing(*, module: str, times: int) -> AsyncIterator[Round]:
    """Import a module in new interpreters; the first one, to warm up, writes the bytecode."""
    with tempfile.TemporaryDirectory() as bytecode:

        async def one_round() -> dict[str, float]:
            bare = median(seconds("pass", bytecode) for _ in range(times))
            whole = median(seconds(f"import {module}", bytecode) for _ in range(times))
            return {"wall_ms": (whole - bare) * 1e3}

        yield one_round
