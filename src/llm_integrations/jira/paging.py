"""All pages of a list behind one iterator, the next page fetched while this one is read.

In: a function that fetches the page at a cursor (a token, or the offset to start at). Out: the
items in order. Must not: trust page lengths (servers return fewer than asked) or a cursor twice
(loops were reported).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from llm_integrations.errors import AnswerMalformed

__all__ = ["Cursor", "Page", "items", "next_offset"]

T = TypeVar("T")
Cursor = str | int


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items, and where the next ones are; None at the end."""

    items: Sequence[T]
    next: Cursor | None


def next_offset(
    start_at: int, count: int, *, total: int | None, is_last: bool | None
) -> int | None:
    """Return the offset of the next page, None after the last.

    The echoed page size is no guide and `total` may be absent: an empty page ends every list.
    """
    after = start_at + count
    if count == 0 or is_last or (total is not None and after >= total):
        return None
    return None if total is None and is_last is None else after


async def items(
    fetch: Callable[[Cursor | None], Awaitable[Page[T]]], *, limit: int | None = None
) -> AsyncGenerator[T, None]:
    """Yield items over all pages, at most `limit`.

    Raises:
        AnswerMalformed: the server sent us to a page we have seen.
    """
    seen: set[Cursor] = set()
    left = limit
    page: Page[T] | None = await fetch(None)
    while page is not None:
        if page.next in seen:
            raise AnswerMalformed("Jira's paging goes in a circle", vendor="jira", status=200)
        if page.next is not None:
            seen.add(page.next)
        wants_more = left is None or left > len(page.items)
        following = _start(fetch, page.next) if wants_more and page.next is not None else None
        try:
            for item in page.items if left is None else page.items[:left]:
                yield item
            left = None if left is None else left - len(page.items)
            page = await following if following is not None else None
        finally:
            if following is not None:
                following.cancel()


def _start(
    fetch: Callable[[Cursor | None], Awaitable[Page[T]]], cursor: Cursor
) -> asyncio.Task[Page[T]]:
    async def run() -> Page[T]:
        return await fetch(cursor)

    return asyncio.create_task(run())
