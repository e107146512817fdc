"""Cuts a list into the pages that the API's lists come in.

Two ways exist: `after_id` and `before_id` (models, batches), and an opaque `page` (files). Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from llm_integrations.simulators.anthropic.errors import ApiError

__all__ = ["page_by_cursor", "page_by_id", "values"]

_DEFAULT: Final = 20
_MAX: Final = 1_000
_CURSOR: Final = "page_"

Query = Mapping[str, list[str]]
Items = Sequence[Mapping[str, object]]


def values(query: Query, name: str) -> list[str]:
    """Return all values of a parameter, written `name` or `name[]`."""
    return query.get(f"{name}[]") or query.get(name) or []


def page_by_id(items: Items, query: Query, what: str) -> dict[str, object]:
    """Return the page that `after_id`, `before_id` and `limit` ask for."""
    ids = [str(item["id"]) for item in items]
    after, before = _one(query, "after_id"), _one(query, "before_id")
    limit = _limit(query)
    if after is not None:
        rest = items[_index(ids, after, "after_id", what) + 1 :]
        page = rest[:limit]
    elif before is not None:
        rest = items[: _index(ids, before, "before_id", what)]
        page = rest[-limit:]
    else:
        rest, page = items, items[:limit]
    return {"data": list(page), "has_more": len(page) < len(rest), **_ends(page)}


def page_by_cursor(items: Items, query: Query) -> dict[str, object]:
    """Return the page that `page` and `limit` ask for, with the cursor of the next one."""
    start = 0
    cursor = _one(query, "page")
    if cursor is not None:
        number = cursor.removeprefix(_CURSOR)
        if not cursor.startswith(_CURSOR) or not number.isdecimal():
            raise ApiError(400, "page: not a cursor of this list")
        start = int(number)
    end = start + _limit(query)
    page = items[start:end]
    more = end < len(items)
    next_page = f"{_CURSOR}{end}" if more else None
    return {"data": list(page), "has_more": more, **_ends(page), "next_page": next_page}


def _ends(page: Items) -> dict[str, object]:
    return {
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _one(query: Query, name: str) -> str | None:
    found = query.get(name)
    return found[0] if found else None


def _index(ids: list[str], wanted: str, name: str, what: str) -> int:
    if wanted not in ids:
        raise ApiError(400, f"{name}: no such {what} in this list")
    return ids.index(wanted)


def _limit(query: Query) -> int:
    text = _one(query, "limit")
    if text is None:
        return _DEFAULT
    if not text.isdecimal() or not 1 <= int(text) <= _MAX:
        raise ApiError(400, f"limit: Input should be between 1 and {_MAX}")
    return int(text)
