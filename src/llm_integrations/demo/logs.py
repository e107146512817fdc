"""Keeps the log off the screen and remembers what went wrong in it, for the judge."""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog

__all__ = ["LogWatch", "watched_logs"]


class LogWatch(logging.Handler):
    """Remembers the errors of structlog and of stdlib loggers, by event name."""

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a stdlib record."""
        self.errors.append(f"{record.name}: {record.msg}"[:200])

    def process(
        self,
        _logger: object,
        method: str,
        event: MutableMapping[str, Any],
    ) -> MutableMapping[str, Any]:
        """Remember a structlog event, and drop it."""
        if method in {"error", "critical", "exception"} or event.get("exc_info"):
            self.errors.append(str(event.get("event", ""))[:200])
        raise structlog.DropEvent


@contextmanager
def watched_logs() -> Iterator[LogWatch]:
    """Send all logs to a `LogWatch` while inside."""
    watch = LogWatch()
    root = logging.getLogger()
    root.addHandler(watch)
    structlog.configure(processors=[watch.process])
    try:
        yield watch
    finally:
        structlog.reset_defaults()
        root.removeHandler(watch)
