"""What a call costs, exactly: usage in, integer pico-USD out.

Rules (numbers as in Anthropic's pricing page, https://platform.claude.com/docs/en/about-claude/pricing):
1. The prompt is `input_tokens` + cache writes + cache reads; each class has its own rate.
2. Cache writes split into 5 minutes and 1 hour; what the split does not cover is 5 minutes.
3. Rates belong to a model and a date; none is derived from another by a factor.
4. A batch costs half, on every token class.
5. Fast mode has its own rates, by the speed that was *served* (`usage.speed`); never in a batch.
   A run at another model (rule 10) that has no fast mode was served at standard speed.
6. `inference_geo` "us" costs 1.1 times on every token class, on models that have the choice.
7. Where a model has a long-prompt tier, a prompt above it moves the whole request, output too.
8. Web searches cost per search, whatever the rest; web fetches nothing. Code execution is billed
   by the container hour, which no answer tells: the price is then *at least* the rest. It is free
   where the request has web tools of 2026-02-09 or later, which only the request tells.
9. A refusal before any output is not billed.
10. Where `usage.iterations` is present the bill is its sum, each entry at its own model, and the
    top-level counters are ignored; an attempt that was declined without output is not billed.
11. Thinking tokens are inside `output_tokens`.
12. The hidden prompt that tools add is inside `input_tokens`.
13. Counting tokens is free, and has no usage.

A cost is *unknown* (None), never zero, when the model is not in the table, when it used a class or
a speed that has no known price there, when a counter is below zero (as one that cannot be read is),
or when a message came without any usage. Ids of other clouds (`anthropic.claude-...`,
`claude-...@20250929`) are not in the table: their sellers have their own prices.

Amounts are exact: every rate is a whole multiple of `_STEP_PUSD`, so that half of it, 1.1 times it
and both are whole as well; nothing is ever rounded.

In: `Usage` or its JSON as plain data. No clock: `at` picks the price row, None the newest known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from typing import Final

import msgspec

from llm_integrations.anthropic.models import (
    BilledMessage,
    Iteration,
    MessageResponse,
    StopReason,
    Usage,
    parse_usage,
)

__all__ = [
    "ModelPrices",
    "Price",
    "PriceTable",
    "Rates",
    "billed_runs",
    "price",
    "price_details",
    "price_message",
    "price_message_details",
    "prices_of",
    "read_prices",
    "table_version",
]

PUSD_PER_MTOK_USD: Final = 1_000_000  # 1 USD per million tokens = 10^12 / 10^6 pUSD per token
_STEP_PUSD: Final = 20
_DATED: Final = re.compile(r"-(?:\d{8}|latest)\Z")
_WEB_TOOL: Final = re.compile(r"web_(?:search|fetch)_(\d{8})\Z")
_WEB_TOOLS_WITH_FREE_CODE_SINCE: Final = "20260209"
_NOTHING_TOLD: Final = Usage()
_CODE_RAN: Final = "code ran in a container, which is billed by the hour"


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
    long_prompt: Rates | None
    above_tokens: int


class ModelPrices(msgspec.Struct, frozen=True, kw_only=True):
    """All price rows of a model, the oldest first.

    Attributes:
        fast: the rates of fast mode; None where the model never had it.
        fast_until: the first day on which it had no fast mode any more.
        us_percent: what inference in the US costs, in percent.
    """

    id: str
    rows: tuple[_Row, ...]
    fast: Rates | None = None
    fast_until: date | None = None
    us_percent: int

    def rates_at(self, at: date | None, prompt_tokens: int) -> Rates:
        """Return the rates on a day, for a prompt of that length; None is the newest known."""
        rows = self.rows
        found = rows[-1]
        if at is not None and len(rows) > 1:
            day = at.date() if type(at) is datetime and at.tzinfo is UTC else _day(at)
            if found.since > day:
                found = rows[0]
                for row in rows:
                    if row.since <= day:
                        found = row
        if found.long_prompt is None or prompt_tokens <= found.above_tokens:
            return found.rates
        return found.long_prompt

    def fast_at(self, at: date | None) -> Rates | None:
        """Return the fast rates on a day; None is the last there were."""
        if at is None or self.fast_until is None or _day(at) < self.fast_until:
            return self.fast
        return None


class PriceTable(msgspec.Struct, frozen=True, kw_only=True):
    """All prices that one file holds; the functions below ask the one that comes along."""

    version: str
    web_search_pusd: int
    models: dict[str, ModelPrices]

    def find(self, model: str) -> ModelPrices | None:
        """Return the prices of a model by its id, alias or dated id; None when it is not known."""
        found = self.models.get(model)
        return found if found is not None else self.models.get(_DATED.sub("", model))

    def bill(
        self,
        usage: Usage | Mapping[str, object],
        model: str,
        *,
        at: date | None = None,
        batch: bool | None = None,
    ) -> int | str:
        """Return the cost in pico-USD, or why it is not known; see `price`."""
        if not isinstance(usage, Usage):
            usage = parse_usage(usage)
        in_batch = usage.service_tier == "batch" if batch is None else batch
        is_fast = usage.speed == "fast" and not in_batch
        total = 0
        if usage.server_tool_use is not None:
            searches = usage.server_tool_use.web_search_requests
            if searches < 0:
                return "the usage counts searches below zero"
            total = searches * self.web_search_pusd
        runs = billed_runs(usage.iterations) if usage.iterations else (usage,)
        for run in runs:
            served = run.model or model if isinstance(run, Iteration) else model
            prices = self.find(served)
            if prices is None:
                return f"the price of {served!r} is not known"
            fast = prices.fast_at(at) if is_fast else None
            if is_fast and fast is None and served == model:
                return f"the price of {served!r} at speed 'fast' is not known"
            cost = _price_run(run, prices, at, fast)
            if isinstance(cost, str):
                return cost
            if usage.inference_geo == "us":
                cost = cost * prices.us_percent // 100
            total += cost // 2 if in_batch else cost
        return total


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a usage comes to, and how sure that is.

    Attributes:
        pusd: in pico-USD; None when unknown.
        at_least: whether more is billed that no answer tells: code execution by the hour.
        reason: why it is unknown or a lower bound; empty when it is exact.
        version: the name of the price table.
    """

    pusd: int | None
    at_least: bool
    reason: str
    version: str

    @property
    def is_exact(self) -> bool:
        """Whether `pusd` is all of it."""
        return self.pusd is not None and not self.at_least


def price(
    usage: Usage | Mapping[str, object],
    model: str,
    *,
    at: date | None = None,
    batch: bool | None = None,
    billed: bool = True,
) -> int | None:
    """Return what `usage` costs in pico-USD, None when unknown.

    Container hours of code execution are not in it: a usage does not tell of them, see
    `price_message_details`.

    Args:
        usage: as the answer has it.
        model: the id in the answer; dated and alias forms are the same model.
        at: the day of the request, in UTC; None takes the newest prices.
        batch: whether it ran in a batch; None believes `usage.service_tier`.
        billed: False for a refusal before any output.
    """
    cost = _table().bill(usage, model, at=at, batch=batch) if billed else 0
    return cost if isinstance(cost, int) else None


def price_details(
    usage: Usage | Mapping[str, object],
    model: str,
    *,
    at: date | None = None,
    batch: bool | None = None,
    billed: bool = True,
    code_ran: bool = False,
) -> Price:
    """Return what `price` returns, with the reason where that is not exact.

    Args:
        usage: see `price`.
        model: see `price`.
        at: see `price`.
        batch: see `price`.
        billed: see `price`.
        code_ran: whether code ran in a container that is billed by the hour.
    """
    cost = _table().bill(usage, model, at=at, batch=batch) if billed else 0
    version = _table().version
    if isinstance(cost, str):
        return Price(pusd=None, at_least=False, reason=cost, version=version)
    return Price(
        pusd=cost, at_least=code_ran, reason=_CODE_RAN if code_ran else "", version=version
    )


def price_message(
    message: MessageResponse | BilledMessage, *, at: date | None = None, batch: bool | None = None
) -> int | None:
    """Return what a message cost in pico-USD, None when unknown; see `price_message_details`."""
    return price_message_details(message, at=at, batch=batch).pusd


def price_message_details(
    message: MessageResponse | BilledMessage,
    *,
    at: date | None = None,
    batch: bool | None = None,
    tool_types: Iterable[str] = (),
) -> Price:
    """Return what a message cost, and whether that is all of it.

    Args:
        message: the answer, whole.
        at: the day of the request, in UTC; None takes the newest prices.
        batch: whether it ran in a batch; None believes `usage.service_tier`.
        tool_types: the `type`s of the request's tools: code execution is free where web search or
            web fetch of 2026-02-09 or later is among them. Without them it counts as billed.
    """
    refused_at_once = message.stop_reason == StopReason.REFUSAL and not message.content
    table = _table()
    cost: int | str = 0
    if not refused_at_once:
        cost = "the answer came without usage"
        if message.usage != _NOTHING_TOLD:
            cost = table.bill(message.usage, message.model, at=at, batch=batch)
    if isinstance(cost, str):
        return Price(pusd=None, at_least=False, reason=cost, version=table.version)
    if _has_run_code(message) and not any(map(_makes_code_free, tool_types)):
        return Price(pusd=cost, at_least=True, reason=_CODE_RAN, version=table.version)
    return Price(pusd=cost, at_least=False, reason="", version=table.version)


def prices_of(model: str) -> ModelPrices | None:
    """Return the prices of a model by its id, alias or dated id; None when it is not known."""
    return _table().find(model)


def table_version() -> str:
    """Return the name of the price table."""
    return _table().version


def _has_run_code(message: MessageResponse | BilledMessage) -> bool:
    """Whether the answer names a container, or has the result of code that ran in one."""
    if message.container is not None:
        return True
    for block in message.content:  # noqa: SIM110 - of one text, as most are: a generator is dearer
        if block.type.endswith("code_execution_tool_result"):
            return True
    return False


def _makes_code_free(tool_type: str) -> bool:
    found = _WEB_TOOL.match(tool_type)
    return found is not None and found[1] >= _WEB_TOOLS_WITH_FREE_CODE_SINCE


def billed_runs(entries: list[Iteration]) -> list[Iteration]:
    """Drop attempts that were declined without output: another model took over after them."""
    fallbacks = [i for i, entry in enumerate(entries) if entry.type == "fallback_message"]
    last = fallbacks[-1] if fallbacks else 0
    return [
        entry
        for i, entry in enumerate(entries)
        if entry.output_tokens or i >= last or entry.type not in {"message", "fallback_message"}
    ]


def _price_run(
    counts: Usage | Iteration, prices: ModelPrices, at: date | None, fast: Rates | None
) -> int | str:
    """Return what the tokens of one model run cost, or why that is not known."""
    plain, output = counts.input_tokens, counts.output_tokens
    read, split = counts.cache_read_input_tokens, counts.cache_creation
    written, written_1h, written_5m = counts.cache_creation_input_tokens, 0, 0
    if split is not None:
        written_1h, written_5m = split.ephemeral_1h_input_tokens, split.ephemeral_5m_input_tokens
    written_5m = max(written_5m, written - written_1h)
    if (plain | output | read | written_1h | written_5m) < 0:  # the sign of any of them
        return "the usage counts tokens below zero"
    rates = fast or prices.rates_at(at, plain + written_5m + written_1h + read)
    total = plain * rates.input + output * rates.output
    if read or written_5m or written_1h:
        cached = _cached(rates, read, written_5m, written_1h)
        if cached is None:
            return f"the price of cached tokens of {prices.id!r} is not known"
        total += cached
    return total


def _cached(rates: Rates, read: int, written_5m: int, written_1h: int) -> int | None:
    """Price the tokens that the cache served or stored; None when a class has no price."""
    total = 0
    for tokens, rate in (
        (read, rates.cache_read),
        (written_5m, rates.cache_write_5m),
        (written_1h, rates.cache_write_1h),
    ):
        if tokens:
            if rate is None:
                return None
            total += tokens * rate
    return total


def _day(at: date) -> date:
    """Return the day in UTC; a time without a zone is taken for UTC."""
    if not isinstance(at, datetime):
        return at
    zone = at.tzinfo
    return at.date() if zone is UTC or zone is None else at.astimezone(UTC).date()


class _FileRow(msgspec.Struct, kw_only=True, rename={"since": "from"}):
    since: date = date.min
    input: str
    output: str
    cache_write_5m: str | None = None
    cache_write_1h: str | None = None
    cache_read: str | None = None
    above_tokens: int = 0
    long_prompt: _FileRow | None = None


class _FileModel(msgspec.Struct, kw_only=True):
    id: str
    aliases: list[str]
    rows: list[_FileRow]
    fast: _FileRow | None = None
    fast_until: date | None = None
    us_percent: int = 100


class _FileSearch(msgspec.Struct):
    usd_per_thousand: str


class _File(msgspec.Struct):
    version: str
    web_search: _FileSearch
    models: list[_FileModel]


def read_prices(data: bytes) -> PriceTable:
    """Return the table that a price file holds.

    Raises:
        ValueError: a rate is no multiple of 20 pico-USD per token.
    """
    file = msgspec.json.decode(data, type=_File)
    models: dict[str, ModelPrices] = {}
    for entry in file.models:
        prices = ModelPrices(
            id=entry.id,
            rows=tuple(_row(row) for row in entry.rows),
            fast=None if entry.fast is None else _rates(entry.fast),
            fast_until=entry.fast_until,
            us_percent=entry.us_percent,
        )
        models |= dict.fromkeys([entry.id, *entry.aliases], prices)
    search_pusd = int(Decimal(file.web_search.usd_per_thousand) * 10**9)
    return PriceTable(version=file.version, web_search_pusd=search_pusd, models=models)


@cache
def _table() -> PriceTable:
    """Read the price file, once."""
    from importlib.resources import files  # noqa: PLC0415 - brings tempfile and archives: 7 ms

    return read_prices(
        files("llm_integrations.anthropic").joinpath("data/prices.json").read_bytes()
    )


def _row(row: _FileRow) -> _Row:
    tier = row.long_prompt
    return _Row(
        since=row.since,
        rates=_rates(row),
        long_prompt=None if tier is None else _rates(tier),
        above_tokens=0 if tier is None else tier.above_tokens,
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
    """Return pico-USD per token; one that could need rounding stops the import."""
    exact = Decimal(usd_per_mtok) * PUSD_PER_MTOK_USD
    if exact % _STEP_PUSD:
        msg = f"{usd_per_mtok} USD per million tokens is no multiple of {_STEP_PUSD} pico-USD"
        raise ValueError(msg)
    return int(exact)
