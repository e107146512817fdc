"""Which deliveries a command means: the same words for `list` and `replay`, read once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from cyclopts import Parameter

from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from llm_integrations.store.delivery_records import DeliveryFilter

__all__ = ["Chosen", "Chosen_", "to_filter"]

_AGO: Final = re.compile(r"([0-9]{1,6})\s*(m|h|d)")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The flags that choose deliveries."""

    outcome: (
        Literal["open", "done", "proposed", "ignored", "superseded", "stale", "dead"] | None
    ) = None
    "Only those that ended so; open for those that have not ended."

    reason: str | None = None
    "Only those whose reason begins so: budget, policy, twin."

    handler: str | None = None
    "Only those of this handler."

    project: str | None = None
    "Only those of this project, by its key in any case."

    issue: str | None = None
    "Only those of this issue, by its key in any case."

    event: str | None = None
    "Only this event: comment_created, issue_created."

    site: str | None = None
    "Only those of this site, by its name in the settings."

    since: str | None = None
    "Only those that arrived then or later: 2026-11-27, 2026-11-27T18:00, or 90m, 24h, 7d ago."

    until: str | None = None
    "Only those that arrived before then; written like --since."


Chosen_: TypeAlias = Annotated[Chosen | None, Parameter(name="*")]


def to_filter(chosen: Chosen | None, now: datetime) -> DeliveryFilter:
    """Return what the store is asked for.

    Raises:
        ConfigError: a time cannot be read.
    """
    from llm_integrations.store.delivery_records import DeliveryFilter

    chosen = chosen or Chosen()
    return DeliveryFilter(
        outcome=chosen.outcome,
        reason=chosen.reason,
        handler=chosen.handler,
        project=chosen.project and chosen.project.upper(),
        issue_key=chosen.issue and chosen.issue.upper(),
        event=chosen.event,
        site=chosen.site,
        since=_moment("--since", chosen.since, now),
        until=_moment("--until", chosen.until, now),
    )


def _moment(flag: str, text: str | None, now: datetime) -> datetime | None:
    """Read a time of this machine's zone, or so long before now."""
    if text is None:
        return None
    try:
        if ago := _AGO.fullmatch(text.strip()):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        msg = f"{flag} {text}: write it as 2026-11-27, 2026-11-27T18:00, or 90m, 24h, 7d"
        raise ConfigError(msg) from None
