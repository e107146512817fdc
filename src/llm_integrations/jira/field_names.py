"""Names of fields to their ids, looked up on demand and remembered.

In: what people call a field. Out: the instance's `FieldInfo`. Fields are made while programs run,
so a name that is not known is looked for once more before it is refused.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from llm_integrations._core.codec import Undecodable, decode
from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.models import FieldInfo

__all__ = ["FieldNames"]

_CUSTOM_ID: Final = re.compile(r"customfield_[0-9]{1,18}")
# Fields whose ids every instance knows; see /rest/api/3/field.
_SYSTEM_IDS: Final = frozenset(
    """
    assignee attachment comment components description duedate environment fixVersions issuelinks
    issuetype labels parent priority project reporter resolution security status summary
    timetracking versions worklog
    """.split()
)
_TEXTAREA: Final = ":textarea"


class _Schema(msgspec.Struct, frozen=True):
    custom: str = ""


_schema: Final = msgspec.json.Decoder(_Schema)


class FieldNames:
    """The fields of one instance.

    Args:
        fetch: returns all of them.
    """

    __slots__ = ("_asking", "_fetch", "_fields")

    def __init__(self, fetch: Callable[[], Awaitable[Sequence[FieldInfo]]]) -> None:
        self._fetch = fetch
        self._fields: Sequence[FieldInfo] | None = None
        self._asking = asyncio.Lock()

    async def find_id(self, name: str) -> str:
        """Return the id of a field; what is an id already costs no look-up.

        Raises:
            InvalidRequest: no field is called so, or several are.
        """
        if name in _SYSTEM_IDS or _CUSTOM_ID.fullmatch(name) is not None:
            return name
        return (await self._find(name)).id

    async def is_rich(self, field_id: str) -> bool:
        """Return whether a custom field holds rich text, so that Markdown can go there."""
        if _CUSTOM_ID.fullmatch(field_id) is None:
            return False
        try:
            told = decode(_schema, bytes((await self._find(field_id)).schema))
        except Undecodable:
            return False
        return told.custom.endswith(_TEXTAREA)

    async def _find(self, name: str) -> FieldInfo:
        known = self._fields
        found = _called(name, known or ())
        if not found:
            found = _called(name, await self._refreshed(known))
        if not found:
            raise InvalidRequest(f"no field is called {name[:100]!r} here")
        if len(found) > 1:
            ids = ", ".join(sorted(field.id for field in found))
            raise InvalidRequest(f"several fields are called {name[:100]!r}: {ids}; name one")
        return found[0]

    async def _refreshed(self, known: Sequence[FieldInfo] | None) -> Sequence[FieldInfo]:
        """Fetch the fields, unless somebody else has done so since `known` was read."""
        async with self._asking:
            if self._fields is None or self._fields is known:
                self._fields = await self._fetch()
            return self._fields


def _called(name: str, fields: Sequence[FieldInfo]) -> list[FieldInfo]:
    """Return the field of this id, else those of this name, whatever its case."""
    for field in fields:
        if field.id == name:
            return [field]
    wanted = name.casefold()
    return [field for field in fields if field.name.casefold() == wanted]
