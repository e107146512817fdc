"""Issues: create, read, change, move along, delete; their labels, properties and meta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from llm_integrations._core.codec import Raw
from llm_integrations.errors import InvalidRequest, NotFound
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.field_names import FieldNames
from llm_integrations.jira.field_values import labels
from llm_integrations.jira.issue import Issue, IssueDecoder
from llm_integrations.jira.jql import issue_key
from llm_integrations.jira.models import (
    CreateIssueRequest,
    Transition,
    UpdateIssueRequest,
)
from llm_integrations.jira.requests import Operation, create_body, update_body
from llm_integrations.jira.updates import IssueUpdate

__all__ = ["EditField", "IssueCalls"]

_ISSUE: Final = "/rest/api/{api}/issue/{key}"


class _Transitions(msgspec.Struct, frozen=True):
    transitions: tuple[Transition, ...] = ()


class EditField(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A field one can change; `operations` are the verbs that `update` takes for it."""

    name: str = ""
    key: str = ""
    required: bool = False
    operations: tuple[str, ...] = ()
    schema: Raw = Raw(b"null")
    allowed_values: Raw = Raw(b"null")


class _EditMeta(msgspec.Struct, frozen=True):
    fields: dict[str, EditField] = {}


class _Property(msgspec.Struct, frozen=True):
    value: object = None


_one: Final = IssueDecoder()
_transitions: Final = msgspec.json.Decoder(_Transitions)
_edit_meta: Final = msgspec.json.Decoder(_EditMeta)
_property: Final = msgspec.json.Decoder(_Property)


class IssueCalls:
    """The part of `JiraClient` about single issues."""

    _connection: Connection
    _field_names: FieldNames

    async def create_issue(self, request: CreateIssueRequest) -> Issue:
        """Create an issue and return its id and key; `get_issue` reads the rest.

        Its `fields` go by id or by the name people see. Names are looked up once per client, among
        several of one name that on the create screen is meant; values are shaped by the schema.

        Jira has no idempotency key for this, so an unknown outcome (`may_have_arrived`) is never
        sent again: look for the issue first, by a property set in the same request.

        Raises:
            FieldUnclear: a name of `fields` that no field has, or several on the screen have.
            InvalidRequest: what cannot be right: no summary, a number that is none.
            Rejected: a field cannot be set; `detail` says which and why.
        """
        dialect = await self._connection.dialect()
        body = create_body(await self._field_names.created(request, dialect), dialect)
        return await self._connection.run(
            Operation(method="POST", route="/rest/api/{api}/issue", body=body, repeatable=False),
            _one,
        )

    async def get_issue(
        self,
        key_or_id: str,
        *,
        fields: Sequence[str] | None = None,
        expand: Sequence[str] | None = None,
        properties: Sequence[str] | None = None,
    ) -> Issue:
        """Return an issue; all fields unless named. A moved one comes under its new key.

        Raises:
            NotFound: it does not exist, or is not visible.
        """
        operation = Operation(
            method="GET",
            route=_ISSUE,
            path={"key": issue_key(key_or_id)},
            query={"fields": fields, "expand": expand, "properties": properties},
        )
        return await self._connection.run(operation, _one)

    async def update_issue(self, key_or_id: str, request: UpdateIssueRequest | IssueUpdate) -> None:
        """Change an issue.

        Fields go by id or by the name people see; names are looked up once and kept. Values are
        shaped by the field's schema.

        Raises:
            FieldUnclear: a name that no field has, or several that can be changed here have.
            InvalidRequest: nothing to change, or a value that its field never takes.
            Conflict: somebody else changed it meanwhile.
            Rejected: a field cannot be set; `detail` says which and why.
        """
        change = request.request() if isinstance(request, IssueUpdate) else request
        dialect = await self._connection.dialect()
        request = await self._field_names.updated(key_or_id, change, dialect)
        body = update_body(request, dialect)
        query = {} if request.notify_users else {"notifyUsers": False}
        # An `add` verb on anything but a set would be done twice by a second sending.
        repeatable = not (request.update.keys() - {"labels", "components", "fixVersions"})
        await self._connection.run(
            _write("PUT", _ISSUE, key_or_id, query=query, body=body, repeatable=repeatable)
        )

    async def get_edit_fields(self, key_or_id: str) -> dict[str, EditField]:
        """Return the fields one can change on an issue now, by id."""
        operation = Operation(
            method="GET", route=f"{_ISSUE}/editmeta", path={"key": issue_key(key_or_id)}
        )
        return (await self._connection.run(operation, _edit_meta)).fields

    async def delete_issue(self, key_or_id: str, *, delete_subtasks: bool = False) -> None:
        """Delete an issue; with subtasks Jira refuses unless told to delete them too."""
        query = {"deleteSubtasks": True} if delete_subtasks else {}
        await self._connection.run(_write("DELETE", _ISSUE, key_or_id, query=query))

    async def assign_issue(self, key_or_id: str, user_id: str | None) -> None:
        """Assign an issue (account id, on Data Center user name); None unassigns it."""
        dialect = await self._connection.dialect()
        route = f"{_ISSUE}/assignee"
        await self._connection.run(_write("PUT", route, key_or_id, body=dialect.user(user_id)))

    async def add_labels(self, key_or_id: str, added: Sequence[str]) -> None:
        """Add labels and leave the others alone.

        Raises:
            InvalidRequest: there is none, or one holds white space.
        """
        verbs = [{"add": label} for label in labels(added)]
        if not verbs:
            raise InvalidRequest("no labels to add")
        await self._connection.run(
            _write("PUT", _ISSUE, key_or_id, body={"update": {"labels": verbs}})
        )

    async def get_transitions(self, key_or_id: str) -> list[Transition]:
        """Return the ways out of the issue's status, for this account, now."""
        operation = Operation(
            method="GET", route=f"{_ISSUE}/transitions", path={"key": issue_key(key_or_id)}
        )
        return list((await self._connection.run(operation, _transitions)).transitions)

    async def transition_issue(
        self,
        key_or_id: str,
        transition_id: str,
        *,
        fields: Mapping[str, object] | None = None,
        update: Mapping[str, Sequence[Mapping[str, object]]] | None = None,
    ) -> None:
        """Move an issue along; only fields on the transition's screen are taken.

        They go by id or by name, as in `update_issue`.
        """
        body: dict[str, object] = {"transition": {"id": transition_id}}
        if fields or update:
            change = UpdateIssueRequest(fields=fields or {}, update=update or {})
            dialect = await self._connection.dialect()
            change = await self._field_names.updated(key_or_id, change, dialect)
            body |= update_body(change, dialect)
        route = f"{_ISSUE}/transitions"
        await self._connection.run(_write("POST", route, key_or_id, body=body, repeatable=False))

    async def move_issue(
        self,
        key_or_id: str,
        to: str,
        *,
        fields: Mapping[str, object] | None = None,
        update: Mapping[str, Sequence[Mapping[str, object]]] | None = None,
    ) -> Transition:
        """Move an issue to where one way out of its status leads, and return that way.

        Args:
            key_or_id: of the issue.
            to: the name of a status, of a transition, or of a status category (new, indeterminate,
                done), in this order; whatever its case. Of several ways to a status, the one
                that is called like it is taken.
            fields: on the transition's screen, as in `transition_issue`.
            update: verbs, as in `transition_issue`.

        Raises:
            InvalidRequest: no way leads there, or several do; the message names them.
        """
        way = _way_to(to, await self.get_transitions(key_or_id))
        await self.transition_issue(key_or_id, way.id, fields=fields, update=update)
        return way

    async def get_issue_property(self, key_or_id: str, name: str) -> object | None:
        """Return an entity property of an issue, None when it is not set."""
        operation = Operation(
            method="GET",
            route=f"{_ISSUE}/properties/{{name}}",
            path={"key": issue_key(key_or_id), "name": _property_name(name)},
        )
        try:
            return (await self._connection.run(operation, _property)).value
        except NotFound:
            return None

    async def set_issue_property(self, key_or_id: str, name: str, value: object) -> None:
        """Set an entity property of an issue, any JSON up to 32,768 characters."""
        route = f"{_ISSUE}/properties/{{name}}"
        path = {"name": _property_name(name)}
        await self._connection.run(_write("PUT", route, key_or_id, path=path, body=value))

    async def delete_issue_property(self, key_or_id: str, name: str) -> None:
        """Remove an entity property of an issue."""
        route = f"{_ISSUE}/properties/{{name}}"
        path = {"name": _property_name(name)}
        await self._connection.run(_write("DELETE", route, key_or_id, path=path))


def _write(
    method: str,
    route: str,
    key_or_id: str,
    *,
    path: Mapping[str, str] | None = None,
    query: Mapping[str, bool] | None = None,
    body: object = None,
    repeatable: bool = True,
) -> Operation:
    key = issue_key(key_or_id)
    return Operation(
        method=method,
        route=route,
        path={"key": key, **(path or {})},
        query=query or {},
        body=body,
        repeatable=repeatable,
        writes_to=key,
    )


def _way_to(wanted: str, ways: Sequence[Transition]) -> Transition:
    """Return the one way that leads there."""
    name = wanted.casefold()
    for fits in (_leads_to_status, _is_called, _leads_to_category):
        found = [way for way in ways if fits(way, name)]
        found = [way for way in found if _is_called(way, name)] or found
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(sorted(way.name for way in found))
            raise InvalidRequest(f"several ways lead to {wanted}: {names}; name one of them")
    names = ", ".join(sorted(way.name for way in ways)) or "none"
    raise InvalidRequest(f"no way leads to {wanted} from here; there are: {names}")


def _leads_to_status(way: Transition, name: str) -> bool:
    return way.to is not None and way.to.name.casefold() == name


def _is_called(way: Transition, name: str) -> bool:
    return way.name.casefold() == name


def _leads_to_category(way: Transition, name: str) -> bool:
    category = way.to.status_category if way.to is not None else None
    return category is not None and name in {category.key.casefold(), category.name.casefold()}


def _property_name(name: str) -> str:
    if not 0 < len(name) <= 255:
        raise InvalidRequest("a property's name has 1 to 255 characters")
    return name
