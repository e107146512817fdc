"""Amounts and times as the console writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from llm_integrations.service.console.markup import Html, element

__all__ = ["exact_usd", "moment", "usd"]

_USD_DIGITS: Final = 12


def usd(pusd: int, places: int = 6) -> str:
    """Return pico-USD in US dollars, rounded for the eye.

    >>> usd(1_234_567_000), usd(5 * 10**12, 2)
    ('0.001235', '5.00')
    """
    amount = Decimal(pusd).scaleb(-_USD_DIGITS)
    return f"{amount.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):,f}"


def exact_usd(pusd: int) -> str:
    """Return pico-USD in US dollars, exactly, with six places at least."""
    whole, _, places = f"{Decimal(pusd).scaleb(-_USD_DIGITS):,.{_USD_DIGITS}f}".partition(".")
    return f"{whole}.{places[:6]}{places[6:].rstrip('0')}"


def moment(at: datetime, now: datetime | None = None) -> Html:
    """Return a moment in UTC; of the day of `now` only the time of day."""
    at = at.astimezone(UTC)
    is_today = now is not None and at.date() == now.astimezone(UTC).date()
    text = at.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S")
    return element("time", text, datetime=at.isoformat(timespec="seconds"))
