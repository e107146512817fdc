"""Where log lines go: stderr, coloured for a person, one JSON object each for a machine."""

from __future__ import annotations

import logging
import sys

import structlog

__all__ = ["log_to_stderr"]


def log_to_stderr(*, verbose: bool) -> None:
    """Send the logs of the service and of every library to stderr, in one form.

    The driver's warnings, of each vain try to connect, are for `verbose`: what they mean for the
    service it says itself, once when the database goes away and once when it is back.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(is_terminal=sys.stderr.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    level = logging.DEBUG if verbose else logging.INFO
    logging.getLogger("llm_integrations").setLevel(level)
    logging.getLogger("psycopg").setLevel(logging.WARNING if verbose else logging.ERROR)


def _rendering(*, is_terminal: bool) -> list[structlog.typing.Processor]:
    """Return what turns an event into a line; tracebacks carry no local variables."""
    if is_terminal:
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
