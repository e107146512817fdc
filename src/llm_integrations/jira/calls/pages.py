"""Lists that Jira pages by offset, whatever it calls what is in them.

In: the operation without its page, and how an answer's items are found. Out: all items, page after
page. The rules of paging are in `jira.paging`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import msgspec

from llm_integrations._core.codec import Decoder
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.paging import Cursor, Page, items, next_offset
from llm_integrations.jira.requests import Operation

__all__ = ["Listed", "Values", "by_offset"]

T = TypeVar("T")


class Listed(msgspec.Struct, frozen=True, rename="camel"):
    """What a page says of itself; each kind of list leaves something out."""

    total: int | None = None
    is_last: bool | None = None


class Values(Listed, Generic[T], frozen=True, rename="camel"):
    """A page whose items are called `values`, as most are."""

    values: tuple[T, ...] = ()


P = TypeVar("P", bound=Listed)


def by_offset(
    connection: Connection,
    operation: Operation,
    decoder: Decoder[P],
    found: Callable[[P], Sequence[T]],
    *,
    size: int,
    limit: int | None = None,
) -> AsyncGenerator[T, None]:
    """Yield what is on all pages, at most `limit`; `size` is asked for on each."""

    async def fetch(cursor: Cursor | None) -> Page[T]:
        start = int(cursor or 0)
        query = {**operation.query, "startAt": start, "maxResults": size}
        page = await connection.run(replace(operation, query=query), decoder)
        some = found(page)
        after = next_offset(start, len(some), total=page.total, is_last=page.is_last)
        return Page(some, after)

    return items(fetch, limit=limit)
