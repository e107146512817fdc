"""What the smaller endpoints share: lists in pages, objects kept as they came, ids in paths.

In: the bytes of an answer. Out: a struct that has them in `raw`, so that a field which this version
does not know is not lost; a field in a shape that it does not expect gets its default. No I/O.

Lists come in two ways (https://platform.claude.com/docs/en/api/pagination): batches and models by
`after_id`, files by an opaque `page`; older API versions list files by `after_id` too.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from llm_integrations._core.codec import Raw
from llm_integrations.anthropic.models import read_leniently
from llm_integrations.errors import InvalidRequest

__all__ = ["KeptDecoder", "Page", "PageDecoder", "in_path", "walk"]

T = TypeVar("T", bound=msgspec.Struct)

LARGEST_PAGE: Final = 1_000
_fields_decoder: Final = msgspec.json.Decoder(dict[str, Any])


class KeptDecoder(Generic[T]):
    """Reads one struct that has a field `raw`, and keeps the bytes there."""

    __slots__ = ("_kind", "_strict")

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._strict = msgspec.json.Decoder(kind)

    def decode(self, data: bytes, /) -> T:
        """Return the object.

        Raises:
            msgspec.ValidationError: it lacks what it cannot be without.
        """
        try:
            value = self._strict.decode(data)
        except msgspec.ValidationError:
            known = read_leniently(self._kind, _fields_decoder.decode(data))
            if any(field.required and field.name not in known for field in self._fields()):
                raise
            value = self._kind(**known)
        msgspec.structs.force_setattr(value, "raw", data)
        return value

    def _fields(self) -> tuple[msgspec.structs.FieldInfo, ...]:
        return msgspec.structs.fields(self._kind)


class _WirePage(msgspec.Struct, frozen=True):
    data: list[Raw]
    has_more: bool = False
    last_id: str | None = None
    next_page: str | None = None


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page, and the parameter that asks for the next one; None after the last."""

    items: list[T]
    next_place: tuple[str, str] | None


class PageDecoder(Generic[T]):
    """Reads a page of objects that are kept as they came."""

    __slots__ = ("_item",)

    def __init__(self, kind: type[T]) -> None:
        self._item = KeptDecoder(kind)

    def decode(self, data: bytes, /) -> Page[T]:
        """Return the page.

        Raises:
            msgspec.ValidationError: it is no page of these objects.
        """
        wire = _page_decoder.decode(data)
        items = [self._item.decode(bytes(item)) for item in wire.data]
        if wire.next_page is not None:
            return Page(items, ("page", wire.next_page))
        if wire.has_more and wire.last_id is not None:
            return Page(items, ("after_id", wire.last_id))
        return Page(items, None)


_page_decoder: Final = msgspec.json.Decoder(_WirePage)


async def walk(
    fetch: Callable[[str], Awaitable[Page[T]]],
    limit: int | None = None,
    filters: Sequence[tuple[str, str]] = (),
) -> AsyncGenerator[T, None]:
    """Yield the items of all pages, at most `limit`.

    Args:
        fetch: gets the page of an encoded query.
        limit: None for all there are.
        filters: further parameters of every query.
    """
    place: tuple[str, str] | None = None
    left = math.inf if limit is None else limit
    while left > 0:
        size = int(min(left, LARGEST_PAGE))
        query = [("limit", str(size)), *filters, *([] if place is None else [place])]
        page = await fetch(urlencode(query))
        for item in page.items[:size]:
            yield item
        left -= len(page.items)
        if page.next_place in {None, place}:
            return
        place = page.next_place


def in_path(what: str, given: str) -> str:
    """Return an id as one segment of a path.

    Raises:
        InvalidRequest: it is empty, or would name another path.
    """
    if not given or not given.strip("."):
        raise InvalidRequest(f"{what}: {given!r} is no id")
    return quote(given, safe="")
