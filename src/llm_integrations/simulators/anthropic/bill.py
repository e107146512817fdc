"""The simulator's own bill, in pico-USD, for the usage it reported.

Unit prices are genai-prices' Decimals. The rules it lacks are here, from
https://platform.claude.com/docs/en/about-claude/pricing (a refusal before any output is free, which
is for the caller to know):
1. `inference_geo: us` makes tokens cost 1.1 times as much.
2. The served speed (`usage.speed`) decides the price, not the one asked for.
3. With `usage.iterations` the sum over its entries is charged, each at its own model, and the
   token totals above it are ignored; an attempt that was declined without output is free.
4. A batch (`service_tier`) halves every token price, not the price of searches.
5. Mythos models cost what the Fable model of the same version costs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price

__all__ = ["Charge", "price_pusd", "searches_pusd"]

_PICO: Final = Decimal(10) ** 12
_US_FACTOR: Final = Decimal("1.1")
_BATCH_FACTOR: Final = Decimal("0.5")
_SAME_PRICE: Final[Mapping[str, str]] = {
    "claude-mythos-5": "claude-fable-5",
    "claude-mythos-5-1": "claude-fable-5-1",
    "claude-mythos-5-2": "claude-fable-5-2",
}

Usage = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One line of the bill, of an answer given at `at`."""

    at: datetime
    request_id: str
    model: str
    usage: Mapping[str, Any]
    pusd: int


def price_pusd(usage: Usage, model: str, *, at: datetime) -> int:
    """Return what a usage costs at that time."""
    iterations = usage.get("iterations")
    if isinstance(iterations, Sequence) and not isinstance(iterations, str):
        usd = sum(
            (_iteration_usd(one, usage, model, at) for one in _billed(iterations)), Decimal(0)
        )
    else:
        usd = _tokens_usd(usage, model, at, usage.get("speed"))
    if usage.get("inference_geo") == "us":
        usd *= _US_FACTOR
    if usage.get("service_tier") == "batch":
        usd *= _BATCH_FACTOR
    usd += _searches_usd(usage, model, at)
    return int((usd * _PICO).to_integral_value())


def searches_pusd(usage: Usage, model: str, *, at: datetime) -> int:
    """Return the part of a price that is for searches."""
    return int((_searches_usd(usage, model, at) * _PICO).to_integral_value())


def _billed(iterations: Sequence[Any]) -> list[Usage]:
    """Leave out what was declined without output before another model took over."""
    kinds = [entry.get("type") for entry in iterations]
    return [
        entry
        for at, entry in enumerate(iterations)
        if _count(entry, "output_tokens") or "fallback_message" not in kinds[at + 1 :]
    ]


def _iteration_usd(entry: Usage, whole: Usage, model: str, at: datetime) -> Decimal:
    served = str(entry.get("model") or model)
    return _tokens_usd(entry, served, at, entry.get("speed", whole.get("speed")))


def _tokens_usd(usage: Usage, model: str, at: datetime, speed: object) -> Decimal:
    written, read = (
        _count(usage, "cache_creation_input_tokens"),
        _count(usage, "cache_read_input_tokens"),
    )
    split = usage.get("cache_creation")
    hour = _count(split, "ephemeral_1h_input_tokens") if isinstance(split, Mapping) else 0
    priced = PricedUsage(
        input_tokens=_count(usage, "input_tokens") + written + read,
        cache_write_tokens=written,
        cache_write_1h_tokens=hour,
        cache_read_tokens=read,
        output_tokens=_count(usage, "output_tokens"),
    )
    return _usd(priced, model, at, "fast" if speed == "fast" else "standard")


def _searches_usd(usage: Usage, model: str, at: datetime) -> Decimal:
    tools = usage.get("server_tool_use")
    searches = _count(tools, "web_search_requests") if isinstance(tools, Mapping) else 0
    if not searches:
        return Decimal(0)
    return _usd(PricedUsage(web_searches=searches), model, at, "standard")


def _usd(priced: PricedUsage, model: str, at: datetime, speed: str) -> Decimal:
    found = calc_price(
        priced,
        _SAME_PRICE.get(model, model),
        provider_id="anthropic",
        genai_request_timestamp=at,
        price_context={"speed": speed} if speed == "fast" else None,
    )
    return found.total_price


def _count(counters: Usage, name: str) -> int:
    value = counters.get(name)
    return value if isinstance(value, int) else 0
