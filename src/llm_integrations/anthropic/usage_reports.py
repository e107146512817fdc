"""What Anthropic says an organization has used and what it cost; asked for with an admin key.

In: the `Calls` and `Caller` of a client whose key is one ("sk-ant-admin..."), and a span of time.
Out: one line per day of UTC, model and tier. The calls are free and share the limits of group
"reports". https://platform.claude.com/docs/en/api/admin/usage_report/retrieve_messages,
https://platform.claude.com/docs/en/api/admin/cost_report
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Final, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import urlencode

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm_integrations._core.call import Caller
    from llm_integrations.anthropic.calls import Calls

__all__ = ["ReportedCost", "ReportedUsage", "load_costs", "load_usage"]

T = TypeVar("T")

GROUP: Final = "reports"
USAGE: Final = "/v1/organizations/usage_report/messages"
COSTS: Final = "/v1/organizations/cost_report"
_DAYS_OF_A_PAGE: Final = "31"
_PUSD_IN_A_CENT: Final = 10**10


class ReportedUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What one model used in one day, in tokens.

    Attributes:
        day: its first moment, in UTC.
        service_tier: "standard", "batch", "priority", ...
    """

    day: datetime
    model: str
    service_tier: str
    input_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    cache_read_tokens: int
    output_tokens: int
    web_searches: int


class ReportedCost(msgspec.Struct, frozen=True, kw_only=True):
    """What one thing cost in one day.

    Attributes:
        model: empty for what is not counted in tokens.
        pusd: pico-USD.
        step_pusd: what the last digit of the amount stands for.
    """

    day: datetime
    model: str
    pusd: int
    step_pusd: int


async def load_usage(
    calls: Calls, caller: Caller, since: datetime, until: datetime
) -> list[ReportedUsage]:
    """Return the use of the days from `since` to `until`."""
    return [
        ReportedUsage(
            day=bucket.starting_at,
            model=row.model or "",
            service_tier=row.service_tier or "",
            input_tokens=row.uncached_input_tokens,
            cache_write_5m_tokens=row.cache_creation.ephemeral_5m_input_tokens,
            cache_write_1h_tokens=row.cache_creation.ephemeral_1h_input_tokens,
            cache_read_tokens=row.cache_read_input_tokens,
            output_tokens=row.output_tokens,
            web_searches=row.server_tool_use.web_search_requests,
        )
        async for bucket in _usage.load(calls, caller, since, until)
        for row in bucket.results
    ]


async def load_costs(
    calls: Calls, caller: Caller, since: datetime, until: datetime
) -> list[ReportedCost]:
    """Return the costs of the days from `since` to `until`; Priority Tier is not among them."""
    return [
        _cost(bucket.starting_at, row)
        async for bucket in _costs.load(calls, caller, since, until)
        for row in bucket.results
    ]


# --- the wire ------------------------------------------------------------------------------------


class _CacheCreation(msgspec.Struct):
    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class _ServerToolUse(msgspec.Struct):
    web_search_requests: int = 0


class _UsageRow(msgspec.Struct):
    model: str | None = None
    service_tier: str | None = None
    uncached_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int = 0
    cache_creation: _CacheCreation = msgspec.field(default_factory=_CacheCreation)
    server_tool_use: _ServerToolUse = msgspec.field(default_factory=_ServerToolUse)


class _CostRow(msgspec.Struct):
    amount: Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,15}(\.[0-9]{1,10})?$")]  # cents
    currency: Literal["USD"] = "USD"
    model: str | None = None


class _Bucket(msgspec.Struct, Generic[T]):
    starting_at: datetime
    results: list[T]


class _Page(msgspec.Struct, Generic[T]):
    data: list[_Bucket[T]]
    has_more: bool = False
    next_page: str | None = None


class _Report(NamedTuple, Generic[T]):
    path: str
    decoder: msgspec.json.Decoder[_Page[T]]
    query: tuple[tuple[str, str], ...]

    async def load(
        self, calls: Calls, caller: Caller, since: datetime, until: datetime
    ) -> AsyncIterator[_Bucket[T]]:
        """Yield the days of all pages."""
        asked = [
            ("starting_at", since.isoformat()),
            ("ending_at", until.isoformat()),
            ("limit", _DAYS_OF_A_PAGE),
            *self.query,
        ]
        place: str | None = None
        while True:
            query = urlencode(asked if place is None else [*asked, ("page", place)])
            call = calls.free("GET", self.path, GROUP, decoder=self.decoder, query=query)
            page: _Page[T] = await caller.run(call)
            for bucket in page.data:
                yield bucket
            if not page.has_more or page.next_page in {None, place}:
                return
            place = page.next_page


_usage: Final = _Report(
    USAGE,
    msgspec.json.Decoder(_Page[_UsageRow]),
    (("bucket_width", "1d"), ("group_by[]", "model"), ("group_by[]", "service_tier")),
)
_costs: Final = _Report(
    COSTS, msgspec.json.Decoder(_Page[_CostRow]), (("group_by[]", "description"),)
)


def _cost(day: datetime, row: _CostRow) -> ReportedCost:
    cents = Decimal(row.amount)
    step = Decimal(1).scaleb(int(cents.as_tuple().exponent))
    return ReportedCost(
        day=day,
        model=row.model or "",
        pusd=int(cents * _PUSD_IN_A_CENT),
        step_pusd=int(step * _PUSD_IN_A_CENT),
    )
