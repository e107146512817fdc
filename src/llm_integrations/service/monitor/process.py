"""What the operating system knows of this process, under the names that every exporter uses."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llm_integrations.service.monitor.exposition import Family, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

__all__ = ["process_families"]

_PROC: Final = Path("/proc/self")


def process_families(started_at: datetime) -> Iterator[Family]:
    """Yield CPU, memory and open files; the last two only where there is a /proc."""
    spent = os.times()
    yield gauge("process_start_time_seconds", "When it started, Unix time.", started_at.timestamp())
    yield counter("process_cpu_seconds_total", "CPU time used.", spent.user + spent.system)
    with suppress(OSError):
        pages = int((_PROC / "statm").read_text().split()[1])
        size = pages * os.sysconf("SC_PAGE_SIZE")
        yield gauge("process_resident_memory_bytes", "Memory in use.", size)
    with suppress(OSError):
        yield gauge(
            "process_open_fds", "Open files and sockets.", sum(1 for _ in (_PROC / "fd").iterdir())
        )
