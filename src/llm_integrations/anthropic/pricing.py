"""What a call costs, exactly: usage in, integer pico-USD out.

Rules (numbers as in Anthropic's pricing page, https://platform.claude.com/docs/en/about-claude/pricing):
1. The prompt is `input_tokens` + cache writes + cache reads; each class has its own rate.
2. Cache writes split into 5 minutes and 1 hour; what the split does not cover is 5 minutes.
3. Rates belong to a model and a date; none is derived from another by a factor.
4. A batch costs half, on every token class.
5. Fast mode has its own rates, by the speed that was *served* (`usage.speed`); never in a batch.
6. `inference_geo` "us" costs 1.1 times on every token class, on models that have the choice.
7. Where a model has a long-prompt tier, a prompt above it moves the whole request, output too.
8. Web searches cost per search, whatever the rest; web fetches nothing.
9. A refusal before any output is not billed.
10. Where `usage.iterations` is present the bill is its sum, each entry at its own model, and the
    top-level counters are ignored; an attempt that was declined without output is not billed.
11. Thinking tokens are inside `output_tokens`.

Not in it: code execution, billed by the container hour, which no answer tells. None means
"unknown": the model is not in the table, or used a class that has no known price.

In: `Usage` or its JSON as plain data. No clock: `at` picks the price row, None the newest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Final

import msgspec

from llm_integrations.anthropic.models import (
    Iteration,
    MessageResponse,
    StopReason,
    Usage,
    parse_usage,
)

__all__ = ["ModelPrices", "Rates", "price", "price_message", "prices_of", "table_version"]

PUSD_PER_MTOK_USD: Final = 1_000_000  # 1 USD per million tokens = 10^12 / 10^6 pUSD per token
_DATED: Final = re.compile(r"-(?:\d{8}|latest)\Z")


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Pico-USD per token of each class; None where the class has no price."""

    input: int
    output: int
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    cache_read: int | None = None


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """Rates from a day on, with the tier for long prompts."""

    since: date
    rates: Rates
    above_tokens: int | None = None
    long_prompt: Rates | None = None

    def rates_for(self, prompt_tokens: int) -> Rates:
        """Return the rates of the tier that a prompt falls into."""
        if self.above_tokens is None or self.long_prompt is None:
            return self.rates
        return self.long_prompt if prompt_tokens > self.above_tokens else self.rates


class ModelPrices(msgspec.Struct, frozen=True, kw_only=True):
    """All price rows of a model, the oldest first."""

    id: str
    rows: tuple[_Row, ...]
    fast: Rates | None = None
    us_percent: int = 100

    def row_at(self, at: date | None) -> _Row:
        """Return the row in force on a day; None is the newest."""
        if at is None:
            return self.rows[-1]
        day = at.date() if isinstance(at, datetime) else at
        found = self.rows[0]
        for row in self.rows:
            if row.since <= day:
                found = row
        return found


class _Table(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    web_search_pusd: int
    models: dict[str, ModelPrices]


def price(
    usage: Usage | Mapping[str, object],
    model: str,
    *,
    at: date | None = None,
    batch: bool | None = None,
    billed: bool = True,
) -> int | None:
    """Return what `usage` costs in pico-USD, None when unknown.

    Args:
        usage: as the answer has it.
        model: the id in the answer; dated and alias forms are the same model.
        at: the day of the request, in UTC; None takes the newest prices.
        batch: whether it ran in a batch; None believes `usage.service_tier`.
        billed: False for a refusal before any output.
    """
    if not isinstance(usage, Usage):
        usage = parse_usage(usage)
    if not billed:
        return 0
    in_batch = usage.service_tier == "batch" if batch is None else batch
    total = _searches(usage)
    if usage.iterations:
        for entry in _billed_entries(usage.iterations):
            cost = _tokens(entry, usage, entry.model or model, at, in_batch=in_batch)
            if cost is None:
                return None
            total += cost
        return total
    cost = _tokens(usage, usage, model, at, in_batch=in_batch)
    return None if cost is None else total + cost


def price_message(message: MessageResponse, *, at: date | None = None) -> int | None:
    """Return what a message cost in pico-USD, None when unknown."""
    refused_at_once = message.stop_reason == StopReason.REFUSAL and not message.content
    return price(message.usage, message.model, at=at, billed=not refused_at_once)


def prices_of(model: str) -> ModelPrices | None:
    """Return the prices of a model by its id, alias or dated id; None when it is not known."""
    models = _table().models
    found = models.get(model)
    return found if found is not None else models.get(_DATED.sub("", model))


def table_version() -> str:
    """Return the name of the price table."""
    return _table().version


def _billed_entries(entries: list[Iteration]) -> list[Iteration]:
    """Drop attempts that were declined without output: another model took over after them."""
    fallbacks = [i for i, entry in enumerate(entries) if entry.type == "fallback_message"]
    last = fallbacks[-1] if fallbacks else 0
    return [
        entry
        for i, entry in enumerate(entries)
        if entry.output_tokens or i >= last or entry.type not in {"message", "fallback_message"}
    ]


def _tokens(
    counts: Usage | Iteration, served: Usage, model: str, at: date | None, *, in_batch: bool
) -> int | None:
    """Price the tokens of one model run."""
    prices = prices_of(model)
    if prices is None:
        return None
    written, split = counts.cache_creation_input_tokens, counts.cache_creation
    written_1h = 0 if split is None else split.ephemeral_1h_input_tokens
    written_5m = max(0 if split is None else split.ephemeral_5m_input_tokens, written - written_1h)
    prompt = counts.input_tokens + written_5m + written_1h + counts.cache_read_input_tokens
    rates = prices.row_at(at).rates_for(prompt)
    if served.speed == "fast" and not in_batch:
        if prices.fast is None:
            return None
        rates = prices.fast
    total = counts.input_tokens * rates.input + counts.output_tokens * rates.output
    for tokens, rate in (
        (written_5m, rates.cache_write_5m),
        (written_1h, rates.cache_write_1h),
        (counts.cache_read_input_tokens, rates.cache_read),
    ):
        if tokens:
            if rate is None:
                return None
            total += tokens * rate
    percent = (prices.us_percent if served.inference_geo == "us" else 100) * (
        50 if in_batch else 100
    )
    return total if percent == 10_000 else -(-total * percent // 10_000)


def _searches(usage: Usage) -> int:
    used = usage.server_tool_use
    return 0 if used is None else used.web_search_requests * _table().web_search_pusd


class _FileRow(msgspec.Struct, kw_only=True, rename={"since": "from"}):
    since: date = date.min
    input: str
    output: str
    cache_write_5m: str | None = None
    cache_write_1h: str | None = None
    cache_read: str | None = None
    above_tokens: int | None = None
    long_prompt: _FileRow | None = None


class _FileModel(msgspec.Struct, kw_only=True):
    id: str
    aliases: list[str]
    rows: list[_FileRow]
    fast: _FileRow | None = None
    us_percent: int = 100


class _FileSearch(msgspec.Struct):
    usd_per_thousand: str


class _File(msgspec.Struct):
    version: str
    web_search: _FileSearch
    models: list[_FileModel]


@cache
def _table() -> _Table:
    """Read the price file, once."""
    data = files("llm_integrations.anthropic").joinpath("data/prices.json").read_bytes()
    file = msgspec.json.decode(data, type=_File)
    models: dict[str, ModelPrices] = {}
    for entry in file.models:
        prices = ModelPrices(
            id=entry.id,
            rows=tuple(_row(row) for row in entry.rows),
            fast=None if entry.fast is None else _rates(entry.fast),
            us_percent=entry.us_percent,
        )
        models |= dict.fromkeys([entry.id, *entry.aliases], prices)
    search_pusd = int(Decimal(file.web_search.usd_per_thousand) * 10**9)
    return _Table(version=file.version, web_search_pusd=search_pusd, models=models)


def _row(row: _FileRow) -> _Row:
    tier = row.long_prompt
    return _Row(
        since=row.since,
        rates=_rates(row),
        above_tokens=None if tier is None else tier.above_tokens,
        long_prompt=None if tier is None else _rates(tier),
    )


def _rates(row: _FileRow) -> Rates:
    return Rates(
        input=_pusd(row.input),
        output=_pusd(row.output),
        cache_write_5m=None if row.cache_write_5m is None else _pusd(row.cache_write_5m),
        cache_write_1h=None if row.cache_write_1h is None else _pusd(row.cache_write_1h),
        cache_read=None if row.cache_read is None else _pusd(row.cache_read),
    )


def _pusd(usd_per_mtok: str) -> int:
    """Return pico-USD per token; a price that is no whole number of them stops the import."""
    exact = Decimal(usd_per_mtok) * PUSD_PER_MTOK_USD
    if exact != int(exact):
        msg = f"{usd_per_mtok} USD per million tokens is no whole number of pico-USD per token"
        raise ValueError(msg)
    return int(exact)
