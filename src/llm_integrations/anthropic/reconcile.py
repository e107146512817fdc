"""Our ledger beside Anthropic's own reports: each difference, and what explains it.

In: the entries of some days, and what the usage and cost reports say of them. Out: one `Difference`
for each number that is not the same, by day of UTC and model. Pure but for `reconcile`, which asks.

What explains a difference, tried in this order:

- "unknown": attempts whose outcome nobody knows, which may have cost up to their holds; or whose
  tokens are estimated, because their stream was cut;
- "not yet reported": the day is not over, or only just: Anthropic's reports lag behind;
- "midnight": attempts that began on one day and ended on another, as a batch does that was read
  days later;
- "priority": Priority Tier is in the usage report and not in the cost report;
- "unpriced": attempts of a model whose price the table does not have;
- "not in the ledger": Anthropic saw more tokens: calls of this organization went past this ledger;
- "prices": the tokens are the same and the amounts are not: our price table is wrong or old;
- "rounding": within the last digit of the amounts that Anthropic tells.

What nothing explains has the cause "" and is for a person to look at: the ledger has more than
Anthropic does, and the day is over.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from llm_integrations._core.codec import decode
from llm_integrations.anthropic.batches.bills import GROUP as BATCH
from llm_integrations.anthropic.catalogue import find_model
from llm_integrations.anthropic.models import parse_usage
from llm_integrations.anthropic.pricing import billed_runs
from llm_integrations.governance.ledger import filter_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from llm_integrations.anthropic.client import AnthropicClient
    from llm_integrations.anthropic.models import Iteration, Usage
    from llm_integrations.anthropic.usage_reports import ReportedCost, ReportedUsage
    from llm_integrations.governance import Governor
    from llm_integrations.governance.ledger import Entry

__all__ = ["Cause", "Difference", "Reconciliation", "compare", "reconcile"]

Cause = Literal[
    "unknown",
    "not yet reported",
    "midnight",
    "priority",
    "unpriced",
    "not in the ledger",
    "prices",
    "rounding",
    "",
]

REPORT_LAG: Final = timedelta(hours=24)
_TOKENS: Final = (
    "input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "output_tokens",
)
_COUNTED: Final = (*_TOKENS, "web_searches")
_raw_decoder: Final = msgspec.json.Decoder()


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One number on both sides; a `Reconciliation` holds those that are not the same.

    Attributes:
        day: its first moment, in UTC.
        model: empty for the cost of a whole day.
        what: "input_tokens", ..., or "cost" in pico-USD.
        cause: see the module; empty where nothing explains it.
        attempts: how many of the ledger's attempts explain it.
    """

    day: datetime
    model: str
    what: str
    ledger: int
    anthropic: int
    cause: Cause
    attempts: int = 0

    @property
    def is_equal(self) -> bool:
        """Whether both say the same."""
        return self.ledger == self.anthropic


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the comparison.

    Attributes:
        ledger_pusd: what the ledger says that settled and cut attempts cost.
        unknown_pusd: what attempts of unknown outcome may have cost at most, on top.
        anthropic_pusd: what Anthropic's cost report says.
        equal: how many numbers were the same.
    """

    since: datetime
    until: datetime
    ledger_pusd: int
    unknown_pusd: int
    anthropic_pusd: int
    equal: int
    differences: tuple[Difference, ...]

    @property
    def is_explained(self) -> bool:
        """Whether nothing is left for a person to look at."""
        return all(one.cause for one in self.differences)


async def reconcile(
    governor: Governor, admin: AnthropicClient, *, since: datetime, until: datetime, now: datetime
) -> Reconciliation:
    """Compare the ledger with Anthropic's reports.

    Args:
        governor: whose ledger.
        admin: a client with an admin key of the organization.
        since: its day of UTC counts whole.
        until: days that begin before it count whole.
        now: decides which days the reports may not know yet.

    Raises:
        AuthFailed: the key is no admin key.
    """
    first, last = _day(since), _day(until - timedelta(microseconds=1)) + timedelta(days=1)
    wanted = filter_of(since=first - timedelta(days=1), until=last)
    entries = [entry async for entry in governor.ledger.iter_entries(wanted)]
    usage = await admin.load_usage(first, last)
    costs = await admin.load_costs(first, last)
    return compare(entries, usage, costs, since=first, until=last, now=now)


def compare(
    entries: Iterable[Entry],
    usage: Iterable[ReportedUsage],
    costs: Iterable[ReportedCost],
    *,
    since: datetime,
    until: datetime,
    now: datetime,
) -> Reconciliation:
    """Put each number of the ledger beside the one that Anthropic reports; `reconcile` is easier.

    Args:
        entries: of all days from `since` to `until`, and of those that began a day earlier.
        usage: by day, model and tier.
        costs: by day and model.
        since: a midnight of UTC.
        until: the same.
        now: see `reconcile`.
    """
    ours, theirs = _Ours(entries, since, until), _Theirs(usage, costs)
    numbers = [*_token_numbers(ours, theirs, now)]
    numbers += _cost_numbers(ours, theirs, [one for one in numbers if not one.is_equal], now)
    return Reconciliation(
        since=since,
        until=until,
        ledger_pusd=sum(ours.pusd.values()),
        unknown_pusd=sum(ours.unknown_pusd.values()),
        anthropic_pusd=sum(theirs.pusd.values()),
        equal=sum(one.is_equal for one in numbers),
        differences=tuple(
            sorted(
                (one for one in numbers if not one.is_equal),
                key=lambda one: (one.day, one.model, one.what),
            )
        ),
    )


def _token_numbers(ours: _Ours, theirs: _Theirs, now: datetime) -> Iterator[Difference]:
    """Yield every number of every model and day that is not zero on both sides."""
    for day, model in ours.tokens.keys() | theirs.tokens.keys():
        mine, told = ours.tokens[day, model], theirs.tokens[day, model]
        for what in _COUNTED:
            if mine[what] or told[what]:
                more = told[what] - mine[what]
                cause, attempts = _why_tokens(ours, day, model, more, now) if more else ("", 0)
                yield Difference(
                    day=day,
                    model=model,
                    what=what,
                    ledger=mine[what],
                    anthropic=told[what],
                    cause=cause,
                    attempts=attempts,
                )


def _cost_numbers(
    ours: _Ours, theirs: _Theirs, tokens: Sequence[Difference], now: datetime
) -> Iterator[Difference]:
    """Yield the cost of every day; why it differs follows from why its tokens do."""
    for day in ours.pusd.keys() | theirs.pusd.keys():
        mine, told = ours.pusd[day], theirs.pusd[day]
        found = [one for one in tokens if one.day == day]
        cause, attempts = _why_cost(ours, theirs, day, found, now) if mine != told else ("", 0)
        yield Difference(
            day=day,
            model="",
            what="cost",
            ledger=mine,
            anthropic=told,
            cause=cause,
            attempts=attempts,
        )


# --- the two sides -------------------------------------------------------------------------------


class _Ours:
    """The ledger by day and model: what is counted, and what makes it uncertain."""

    def __init__(self, entries: Iterable[Entry], since: datetime, until: datetime) -> None:
        self.tokens: defaultdict[tuple[datetime, str], Counter[str]] = defaultdict(Counter)
        self.pusd: Counter[datetime] = Counter()
        self.unknown_pusd: Counter[datetime] = Counter()
        self.unknown: Counter[tuple[datetime, str]] = Counter()
        self.at_midnight: Counter[tuple[datetime, str]] = Counter()
        self.unpriced: Counter[datetime] = Counter()
        for entry in entries:
            begun, ended = _day(entry.created_at), _day(entry.settled_at or entry.created_at)
            models = _models_of(entry)
            if begun != ended:
                days = range((ended - begun).days + 1)  # a batch may be read days later
                around = [(begun + timedelta(days=day), model) for day in days for model in models]
                self.at_midnight.update(around)
            if since <= ended < until:
                self._count(entry, ended, models)

    def _count(self, entry: Entry, day: datetime, models: Sequence[str]) -> None:
        if entry.state in {"unknown", "held", "partial"}:
            self.unknown.update((day, model) for model in models)
        if entry.state in {"unknown", "held"}:
            self.unknown_pusd[day] += entry.charged_pusd
            return
        if entry.state not in {"settled", "partial"} or entry.cost_pusd == 0:
            return
        if entry.cost_pusd is None:
            self.unpriced[day] += 1
        else:
            self.pusd[day] += entry.cost_pusd
        for served, counted in _counted(entry, models[0]):
            self.tokens[day, served].update(counted)


class _Theirs:
    """Anthropic's reports by day and model."""

    def __init__(self, usage: Iterable[ReportedUsage], costs: Iterable[ReportedCost]) -> None:
        self.tokens: defaultdict[tuple[datetime, str], Counter[str]] = defaultdict(Counter)
        self.priority: set[datetime] = set()
        self.pusd: Counter[datetime] = Counter()
        self.slack_pusd: Counter[datetime] = Counter()
        for line in usage:
            day = _day(line.day)
            self.tokens[day, line.model].update({name: getattr(line, name) for name in _COUNTED})
            if line.service_tier.startswith("priority"):
                self.priority.add(day)
        amounts = list(costs)
        # Amounts may come without their last zeros: the finest of them tells how they are rounded.
        step = min((cost.step_pusd for cost in amounts), default=0)
        for cost in amounts:
            day = _day(cost.day)
            self.pusd[day] += cost.pusd
            self.slack_pusd[day] += step // 2


def _counted(entry: Entry, model: str) -> Iterator[tuple[str, Mapping[str, int]]]:
    """Yield what each model that ran for an attempt has used: the models on the bill."""
    if not entry.raw:
        return
    raw = decode(_raw_decoder, entry.raw)
    if isinstance(raw, list):  # of a batch: see `Tally`
        for part in raw:
            yield part["model"], _tokens_of_batch(Counter(part["usage"]))
        return
    usage = parse_usage(raw)
    searches = 0 if usage.server_tool_use is None else usage.server_tool_use.web_search_requests
    if not usage.iterations:
        yield model, _tokens(usage) | {"web_searches": searches}
        return
    for run in billed_runs(usage.iterations):
        yield run.model or model, _tokens(run)
    yield model, {"web_searches": searches}


def _models_of(entry: Entry) -> list[str]:
    """Return the models of an attempt: of a batch there may be several."""
    named = entry.served or entry.model
    names = named.split("+") if entry.group == BATCH else [named]
    return names if entry.served else [_full_name(name) for name in names]


def _full_name(model: str) -> str:
    """Return the dated id of an alias, which is what the reports have."""
    known = find_model(model)
    return model if known is None else known.id


def _tokens(usage: Usage | Iteration) -> dict[str, int]:
    written = usage.cache_creation_input_tokens
    split = usage.cache_creation
    hour = 0 if split is None else split.ephemeral_1h_input_tokens
    counted = (
        usage.input_tokens,
        written - hour,
        hour,
        usage.cache_read_input_tokens,
        usage.output_tokens,
    )
    return dict(zip(_TOKENS, counted, strict=True))


def _tokens_of_batch(counters: Counter[str]) -> dict[str, int]:
    """Return the same of what one model used in a batch, which is booked by its counters."""
    hour = counters["ephemeral_1h_input_tokens"]
    counted = (
        counters["input_tokens"],
        counters["cache_creation_input_tokens"] - hour,
        hour,
        counters["cache_read_input_tokens"],
        counters["output_tokens"],
        counters["web_search_requests"],
    )
    return dict(zip(_COUNTED, counted, strict=True))


# --- causes --------------------------------------------------------------------------------------


def _why_tokens(
    ours: _Ours, day: datetime, model: str, more: int, now: datetime
) -> tuple[Cause, int]:
    """Say why Anthropic counted `more` than the ledger, or less where that is below zero."""
    if unknown := ours.unknown[day, model]:
        return "unknown", unknown
    if more < 0 and _is_recent(day, now):
        return "not yet reported", 0
    if around := ours.at_midnight[day, model]:
        return "midnight", around
    return ("not in the ledger" if more > 0 else ""), 0


def _why_cost(
    ours: _Ours, theirs: _Theirs, day: datetime, found: Sequence[Difference], now: datetime
) -> tuple[Cause, int]:
    """Say why a day's cost differs, given why its tokens do."""
    more = theirs.pusd[day] - ours.pusd[day]
    if abs(more) <= theirs.slack_pusd[day]:
        return "rounding", 0
    if unpriced := ours.unpriced[day]:
        return "unpriced", unpriced
    if day in theirs.priority and more < 0:
        return "priority", 0
    if not found:
        if more < 0 and not theirs.pusd[day] and _is_recent(day, now):
            return "not yet reported", 0
        return "prices", 0
    if any(not one.cause for one in found):
        return "", 0
    first = max(found, key=lambda one: abs(one.anthropic - one.ledger))
    if first.cause == "unknown" and not _may_be(more, ours.unknown_pusd[day], found):
        return "prices", 0
    return first.cause, first.attempts


def _may_be(more: int, unknown_pusd: int, found: Sequence[Difference]) -> bool:
    """Whether attempts of unknown outcome can explain an amount: no more than they may cost.

    Cut streams may be off either way, by tokens that no hold tells of.
    """
    others = any(one.cause != "unknown" for one in found)
    return others or more <= unknown_pusd or unknown_pusd == 0


def _is_recent(day: datetime, now: datetime) -> bool:
    return now < day + timedelta(days=1) + REPORT_LAG


def _day(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
