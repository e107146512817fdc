"""All pages of a list behind one iterator, the next page fetched while this one is read.

In: a function that fetches the page at a cursor. Out: the items in order. Must not: trust page
lengths (servers return fewer than asked) or a cursor twice (loops were reported).

| style                                        | cursor                                         |
|----------------------------------------------|------------------------------------------------|
| token: `nextPageToken`, `isLast`             | the token                                      |
| page bean: `startAt`, `isLast?`, `values`    | `next_offset`                                  |
| named list: `startAt`, `total`, `comments`   | `next_offset`                                  |
| flat array: `startAt`, nothing in the answer | `next_flat`: only an empty page is the last    |
| since: `lastPage`, `nextPage` (an address)   | `next_since`: a number of it, never an address |
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import parse_qs, urljoin, urlsplit

from llm_integrations.errors import AnswerMalformed, InvalidRequest

__all__ = ["Cursor", "Page", "items", "next_flat", "next_offset", "next_since", "size_of_page"]

T = TypeVar("T")
Cursor = str | int


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items, and where the next ones are; None at the end."""

    items: Sequence[T]
    next: Cursor | None


def size_of_page(most: int, limit: int | None) -> int:
    """Return how many items to ask for on a page: no more than are wanted, for each costs."""
    return most if limit is None else max(1, min(limit, most))


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


def next_flat(start_at: int, count: int) -> int | None:
    """Return the offset of the next page of a list that says nothing of itself."""
    return start_at + count if count else None


def next_since(next_page: str | None, *, is_last: bool, homes: Sequence[str]) -> int | None:
    """Return the `since` of the next page, in ms; None after the last.

    Args:
        next_page: the address that Jira names; only its number is used.
        is_last: what the page says.
        homes: base addresses of this site; an address elsewhere is not Jira's.

    Raises:
        AnswerMalformed: the address is of another site, or holds no such number.
    """
    if is_last or not next_page:
        return None
    try:
        url = urljoin(homes[0], next_page)
        is_home = _origin(url) in {_origin(home) for home in homes}
        since = parse_qs(urlsplit(url).query).get("since", [""])[-1]
    except ValueError:
        is_home, since = False, ""
    if not is_home or not (since.isascii() and since.isdigit()):
        raise AnswerMalformed("the next page is not of this site", vendor="jira", status=200)
    return int(since)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


async def items(
    fetch: Callable[[Cursor | None], Awaitable[Page[T]]], *, limit: int | None = None
) -> AsyncGenerator[T, None]:
    """Yield items over all pages, at most `limit`.

    Raises:
        InvalidRequest: the limit is negative, and nothing was asked for; None is no limit.
        AnswerMalformed: the server sent us to a page we have seen.
    """
    if limit is not None and limit < 0:
        raise InvalidRequest("a limit is not negative; leave it out for all")
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
