"""Fields by the names people see: their ids and their schemas, looked up on demand and remembered.

In: requests whose fields go by name or by id. Out: the same by ids, values shaped by each field's
schema (`field_values`). Fields are made while programs run, so a name that is not known is looked
for once more before it is refused. Names are not unique: a team-managed project has fields of its
own. Where several fields are called so, the one on the screen in question is meant.

What goes by an id and needs no schema costs no request; else the fields are fetched, once per
client.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Final

from msgspec import structs

from llm_integrations._core.loops import PerLoop
from llm_integrations.errors import FieldUnclear, InvalidRequest
from llm_integrations.jira.dialect import Dialect
from llm_integrations.jira.field_values import SYSTEM_FIELDS, needs_schema, shape_of
from llm_integrations.jira.models import CreateIssueRequest, FieldInfo, UpdateIssueRequest

__all__ = ["FieldNames"]

Screen = Callable[[], Awaitable[Collection[str]]]

_CUSTOM_ID: Final = re.compile(r"customfield_[0-9]{1,18}")
_NEAR: Final = 5


class FieldNames:
    """The fields of one instance.

    Args:
        fetch: returns all of them.
        create_screen: returns the ids of those on the create screen of a project's issue type.
        edit_screen: returns the ids of those that can be changed on an issue.
    """

    __slots__ = ("_asking", "_create_screen", "_edit_screen", "_fetch", "_fields")

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Sequence[FieldInfo]]],
        *,
        create_screen: Callable[[str, str], Awaitable[Collection[str]]],
        edit_screen: Callable[[str], Awaitable[Collection[str]]],
    ) -> None:
        self._fetch = fetch
        self._create_screen = create_screen
        self._edit_screen = edit_screen
        self._fields: Sequence[FieldInfo] | None = None
        self._asking = PerLoop(asyncio.Lock)

    async def find_id(self, name: str, screen: Screen | None = None) -> str:
        """Return the id of a field; what is an id already costs no look-up.

        Raises:
            FieldUnclear: no field is called so, or several are, on this screen too.
        """
        if name in SYSTEM_FIELDS or _CUSTOM_ID.fullmatch(name) is not None:
            return name
        return (await self._find(name, screen)).id

    async def created(self, request: CreateIssueRequest, dialect: Dialect) -> CreateIssueRequest:
        """Return the request with its `fields` by id, values shaped.

        Raises:
            FieldUnclear: a name that no field has, or that several on the create screen have.
            InvalidRequest: two names of one field, or a value that its field never takes.
        """
        if not request.fields:
            return request
        screen = partial(self._create_screen, request.project, request.issue_type)
        ids = await self._ids(request.fields, screen)
        fields = {
            ids[name]: await self._shaped(name, ids[name], value, dialect)
            for name, value in request.fields.items()
        }
        return structs.replace(request, fields=fields)

    async def updated(
        self, key_or_id: str, request: UpdateIssueRequest, dialect: Dialect
    ) -> UpdateIssueRequest:
        """Return the request with its `fields` and `update` by id, values shaped.

        Raises:
            FieldUnclear: a name that no field has, or that several on the edit screen have.
            InvalidRequest: two names of one field, or a value that its field never takes.
        """
        screen = partial(self._edit_screen, key_or_id)
        ids = await self._ids([*request.fields, *request.update], screen)
        fields = {
            ids[name]: await self._shaped(name, ids[name], value, dialect)
            for name, value in request.fields.items()
        }
        update = {
            ids[name]: [
                {
                    verb: await self._shaped(name, ids[name], value, dialect, verb)
                    for verb, value in told.items()
                }
                for told in verbs
            ]
            for name, verbs in request.update.items()
        }
        return structs.replace(request, fields=fields, update=update)

    async def _ids(self, names: Iterable[str], screen: Screen) -> dict[str, str]:
        ids = {name: await self.find_id(name, screen) for name in names}
        if len(set(ids.values())) < len(ids):
            raise InvalidRequest("two names in this request are of one field")
        return ids

    async def _shaped(
        self, name: str, field_id: str, value: object, dialect: Dialect, verb: str = "set"
    ) -> object:
        """Shape a value; those of system fields are shaped where the body is built."""
        if field_id in SYSTEM_FIELDS or (name == field_id and not needs_schema(value)):
            return value
        shape = shape_of(await self._find(field_id))
        return shape.shaped(name, value, dialect, verb=verb)

    async def _find(self, name: str, screen: Screen | None = None) -> FieldInfo:
        known = self._fields
        found = _called(name, known or ())
        if not found:
            known = await self._refreshed(known)
            found = _called(name, known)
        if len(found) > 1 and screen is not None:
            shown = await screen()
            found = [field for field in found if field.id in shown] or found
        if len(found) != 1:
            raise _unclear(name, found, known or ())
        return found[0]

    async def _refreshed(self, known: Sequence[FieldInfo] | None) -> Sequence[FieldInfo]:
        """Fetch the fields, unless somebody else has done so since `known` was read."""
        async with self._asking.here():
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


def _unclear(name: str, found: Sequence[FieldInfo], known: Sequence[FieldInfo]) -> FieldUnclear:
    """Say that a name is of several fields, by their ids, or of none, with the names near it."""
    if found:
        ids = tuple(sorted(field.id for field in found))
        told = f"several fields are called {name[:100]!r}: {', '.join(ids)}; name one by its id"
        return FieldUnclear(told, field=name, candidates=ids)
    names = {field.name.casefold(): field.name for field in known}
    near = tuple(names[one] for one in get_close_matches(name.casefold(), names, n=_NEAR))
    hint = f"; is it {' or '.join(map(repr, near))}?" if near else ""
    told = f"no field is called {name[:100]!r} here{hint}"
    return FieldUnclear(told, field=name, candidates=near)
