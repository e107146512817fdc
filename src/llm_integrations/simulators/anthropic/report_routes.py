"""The organization's reports: what was used and what it cost, from the simulator's own bill.

`GET /v1/organizations/usage_report/messages` and `.../cost_report`, for admin keys in `x-api-key`.
Times are cut into buckets of UTC; a bucket without use has no results. A cost is a decimal string
in cents. Priority Tier is used but has no cost there. Costs are told by model, tier and kind; the
real report tells the class of the tokens too.
https://platform.claude.com/docs/en/api/admin/usage_report/retrieve_messages
https://platform.claude.com/docs/en/api/admin/cost_report
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from llm_integrations.simulators.anthropic.bill import Charge, searches_pusd
from llm_integrations.simulators.anthropic.errors import ApiError
from llm_integrations.simulators.anthropic.paging import values
from llm_integrations.simulators.anthropic.routing import Route
from llm_integrations.simulators.anthropic.state import State
from llm_integrations.simulators.anthropic.wire import RecordedRequest, Reply, json_reply

__all__ = ["ReportRoutes"]

_WIDTHS: Final = {
    "1m": (timedelta(minutes=1), 60, 1_440),
    "1h": (timedelta(hours=1), 24, 168),
    "1d": (timedelta(days=1), 7, 31),
}
_PUSD_IN_A_CENT: Final = Decimal(10) ** 10
_CURSOR: Final = "page_"
_GROUPS: Final = {"model", "workspace_id", "api_key_id", "service_tier", "context_window"}

Usage = Mapping[str, Any]
Results = Callable[[list[Charge], list[str]], list[dict[str, object]]]


class ReportRoutes:
    """The two endpoints."""

    def __init__(self, state: State, settle: Callable[[], object]) -> None:
        """Take what the routes share, and what puts ended batches on the bill."""
        self._state = state
        self._settle = settle

    def routes(self) -> tuple[Route, ...]:
        """Return the endpoints."""
        root = "/v1/organizations"
        usage, cost = f"{root}/usage_report/messages", f"{root}/cost_report"
        return (
            Route(method="GET", path=usage, handler=self._usage, for_admins=True),
            Route(method="GET", path=cost, handler=self._cost, for_admins=True),
        )

    def _usage(self, record: RecordedRequest, _: str) -> Reply:
        groups = values(record.query, "group_by")
        if unknown := set(groups) - _GROUPS:
            raise ApiError(400, f"group_by: {min(unknown)} is not one of the options")
        return self._report(record, groups, _used)

    def _cost(self, record: RecordedRequest, _: str) -> Reply:
        groups = values(record.query, "group_by")
        if unknown := set(groups) - {"workspace_id", "description"}:
            raise ApiError(400, f"group_by: {min(unknown)} is not one of the options")
        if values(record.query, "bucket_width") not in ([], ["1d"]):
            raise ApiError(400, "bucket_width: Input should be '1d'")
        return self._report(record, groups, _costs)

    def _report(self, record: RecordedRequest, groups: list[str], results: Results) -> Reply:
        self._settle()
        visible = self._state.now() - timedelta(seconds=self._state.behaviour.report_lag_s)
        charges = [charge for charge in self._state.charges if charge.at <= visible]
        buckets = [
            {
                "starting_at": _text(start),
                "ending_at": _text(end),
                "results": results([one for one in charges if start <= one.at < end], groups),
            }
            for start, end in _buckets(record.query, self._state.now())
        ]
        first = _first(record.query)
        last = first + _limit(record.query)
        next_page = f"{_CURSOR}{last}" if last < len(buckets) else None
        page = buckets[first:last]
        return json_reply({"data": page, "has_more": next_page is not None, "next_page": next_page})


# --- what a bucket holds -------------------------------------------------------------------------


def _used(charges: list[Charge], groups: list[str]) -> list[dict[str, object]]:
    found: dict[tuple[str | None, str | None], Counter[str]] = {}
    for charge in charges:
        for model, usage in _runs(charge):
            key = (
                model if "model" in groups else None,
                _tier(charge) if "service_tier" in groups else None,
            )
            found.setdefault(key, Counter()).update(_counted(usage))
        searches = _nested(charge.usage, "server_tool_use", "web_search_requests")
        found[next(reversed(found))]["searches"] += searches
    return [
        {
            "uncached_input_tokens": counted["input"],
            "cache_creation": {
                "ephemeral_1h_input_tokens": counted["hour"],
                "ephemeral_5m_input_tokens": counted["minutes"],
            },
            "cache_read_input_tokens": counted["read"],
            "output_tokens": counted["output"],
            "server_tool_use": {"web_search_requests": counted["searches"]},
            "api_key_id": None,
            "workspace_id": None,
            "model": model,
            "service_tier": tier,
            "context_window": None,
            "inference_geo": None,
        }
        for (model, tier), counted in found.items()
    ]


def _costs(charges: list[Charge], groups: list[str]) -> list[dict[str, object]]:
    is_described = "description" in groups
    found: Counter[tuple[str | None, str | None, str | None]] = Counter()
    for charge in charges:
        if not charge.pusd or _tier(charge) == "priority":
            continue
        searches = searches_pusd(charge.usage, charge.model, at=charge.at)
        tier = "batch" if _tier(charge) == "batch" else "standard"
        if is_described:
            found["tokens", charge.model, tier] += charge.pusd - searches
            found["web_search", None, None] += searches
        else:
            found[None, None, None] += charge.pusd
    return [
        {
            "currency": "USD",
            "amount": f"{Decimal(pusd) / _PUSD_IN_A_CENT:f}",
            "workspace_id": None,
            "description": f"{model or 'Web search'} Usage" if is_described else None,
            "cost_type": kind,
            "context_window": None,
            "model": model,
            "service_tier": tier,
            "token_type": None,
        }
        for (kind, model, tier), pusd in found.items()
        if pusd
    ]


def _runs(charge: Charge) -> list[tuple[str, Usage]]:
    """Return the models that ran for a charge, each with its counters; as it is billed."""
    iterations = charge.usage.get("iterations")
    if not charge.pusd:
        return [(charge.model, {})]
    if isinstance(iterations, list) and iterations:
        return [(str(one.get("model") or charge.model), one) for one in iterations]
    return [(charge.model, charge.usage)]


def _counted(usage: Usage) -> dict[str, int]:
    written = int(usage.get("cache_creation_input_tokens") or 0)
    hour = _nested(usage, "cache_creation", "ephemeral_1h_input_tokens")
    return {
        "input": int(usage.get("input_tokens") or 0),
        "hour": hour,
        "minutes": written - hour,
        "read": int(usage.get("cache_read_input_tokens") or 0),
        "output": int(usage.get("output_tokens") or 0),
    }


def _nested(usage: Usage, outer: str, name: str) -> int:
    inner = usage.get(outer)
    return int(inner.get(name) or 0) if isinstance(inner, Mapping) else 0


def _tier(charge: Charge) -> str:
    return str(charge.usage.get("service_tier") or "standard")


# --- the query -----------------------------------------------------------------------------------


def _buckets(query: Mapping[str, list[str]], now: datetime) -> Iterator[tuple[datetime, datetime]]:
    width = _width(query)[0]
    start, until = _moment(query, "starting_at"), _moment(query, "ending_at") or now
    if start is None:
        raise ApiError(400, "starting_at: Field required")
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    start -= (start - epoch) % width
    if start >= until:
        raise ApiError(400, "ending_at: must be after starting_at")
    while start < until:
        yield start, start + width
        start += width


def _width(query: Mapping[str, list[str]]) -> tuple[timedelta, int, int]:
    given = (values(query, "bucket_width") or ["1d"])[0]
    if given not in _WIDTHS:
        raise ApiError(400, "bucket_width: Input should be '1d', '1h' or '1m'")
    return _WIDTHS[given]


def _limit(query: Mapping[str, list[str]]) -> int:
    _, usual, most = _width(query)
    text = (values(query, "limit") or [str(usual)])[0]
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise ApiError(400, f"limit: Input should be between 1 and {most}")
    return int(text)


def _first(query: Mapping[str, list[str]]) -> int:
    text = (values(query, "page") or [f"{_CURSOR}0"])[0]
    number = text.removeprefix(_CURSOR)
    if not text.startswith(_CURSOR) or not number.isdecimal():
        raise ApiError(400, "page: not a cursor of this list")
    return int(number)


def _moment(query: Mapping[str, list[str]], name: str) -> datetime | None:
    found = values(query, name)
    if not found:
        return None
    try:
        moment = datetime.fromisoformat(found[0])
    except ValueError:
        raise ApiError(400, f"{name}: Input should be a valid datetime") from None
    if moment.tzinfo is None:
        raise ApiError(400, f"{name}: needs a time zone")
    return moment.astimezone(UTC)


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
