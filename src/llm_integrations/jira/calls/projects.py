"""Projects and what an instance offers: issue types, priorities, fields, accounts."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from llm_integrations._core.codec import Decoder, Raw
from llm_integrations.errors import AuthFailed
from llm_integrations.jira.calls.pages import Values, by_offset
from llm_integrations.jira.connection import Connection
from llm_integrations.jira.field_names import FieldNames
from llm_integrations.jira.jql import project_key
from llm_integrations.jira.models import (
    Component,
    FieldInfo,
    IssueType,
    Priority,
    Project,
    ServerInfo,
    Status,
    User,
    Version,
)
from llm_integrations.jira.requests import Operation

__all__ = ["ProjectCalls"]

T = TypeVar("T")
_META: Final = "/rest/api/{api}/issue/createmeta/{project}/issuetypes"
_PAGE: Final = 100
_META_PAGE: Final = 50


class _IssueTypes(Values[IssueType], frozen=True):
    """Create meta: Cloud and Data Center name the same list differently."""

    issue_types: tuple[IssueType, ...] = ()


class CreateField(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A field one can set when creating an issue of a type."""

    field_id: str = ""
    name: str = ""
    required: bool = False
    has_default_value: bool = False
    operations: tuple[str, ...] = ()
    schema: Raw = Raw(b"null")
    allowed_values: Raw = Raw(b"null")


class _CreateFields(Values[CreateField], frozen=True):
    fields: tuple[CreateField, ...] = ()


class _TypeStatuses(msgspec.Struct, frozen=True):
    name: str = ""
    statuses: tuple[Status, ...] = ()


_statuses: Final[msgspec.json.Decoder[list[_TypeStatuses]]] = msgspec.json.Decoder(
    list[_TypeStatuses]
)
_versions: Final[msgspec.json.Decoder[list[Version]]] = msgspec.json.Decoder(list[Version])
_components: Final[msgspec.json.Decoder[list[Component]]] = msgspec.json.Decoder(list[Component])
_project: Final = msgspec.json.Decoder(Project)
_project_page: Final = msgspec.json.Decoder(Values[Project])
_project_list: Final[msgspec.json.Decoder[list[Project]]] = msgspec.json.Decoder(list[Project])
_types: Final = msgspec.json.Decoder(_IssueTypes)
_create_fields: Final = msgspec.json.Decoder(_CreateFields)
_priorities: Final[msgspec.json.Decoder[list[Priority]]] = msgspec.json.Decoder(list[Priority])
_fields: Final[msgspec.json.Decoder[list[FieldInfo]]] = msgspec.json.Decoder(list[FieldInfo])
_user: Final = msgspec.json.Decoder(User)


class ProjectCalls:
    """The part of `JiraClient` about projects and the instance itself."""

    _connection: Connection
    _field_names: FieldNames

    async def get_projects(self) -> list[Project]:
        """Return all projects this account sees."""
        if not (await self._connection.dialect()).is_cloud:
            operation = Operation(method="GET", route="/rest/api/{api}/project")
            return await self._connection.run(operation, _project_list)

        operation = Operation(method="GET", route="/rest/api/{api}/project/search")
        found = by_offset(
            self._connection, operation, _project_page, lambda page: page.values, size=_PAGE
        )
        return [project async for project in found]

    async def get_project(self, key_or_id: str) -> Project:
        """Return a project with its components, versions and issue types."""
        operation = Operation(
            method="GET",
            route="/rest/api/{api}/project/{project}",
            path={"project": project_key(key_or_id)},
        )
        return await self._connection.run(operation, _project)

    async def get_project_statuses(self, key_or_id: str) -> dict[str, tuple[Status, ...]]:
        """Return the statuses that issues of a project can have, by issue type."""
        kinds = await self._of_project(key_or_id, "statuses", _statuses)
        return {kind.name: kind.statuses for kind in kinds}

    async def get_project_versions(self, key_or_id: str) -> list[Version]:
        """Return the versions of a project."""
        return await self._of_project(key_or_id, "versions", _versions)

    async def get_project_components(self, key_or_id: str) -> list[Component]:
        """Return the components of a project."""
        return await self._of_project(key_or_id, "components", _components)

    async def _of_project(self, key_or_id: str, part: str, decoder: Decoder[T]) -> T:
        operation = Operation(
            method="GET",
            route=f"/rest/api/{{api}}/project/{{project}}/{part}",
            path={"project": project_key(key_or_id)},
        )
        return await self._connection.run(operation, decoder)

    async def get_create_types(self, project: str) -> list[IssueType]:
        """Return the issue types this account may create in a project."""
        operation = Operation(method="GET", route=_META, path={"project": project_key(project)})
        kinds = by_offset(
            self._connection,
            operation,
            _types,
            lambda page: page.issue_types or page.values,
            size=_META_PAGE,
        )
        return [kind async for kind in kinds]

    async def get_create_fields(self, project: str, issue_type_id: str) -> list[CreateField]:
        """Return the fields to create an issue of a type, with their allowed values."""
        operation = Operation(
            method="GET",
            route=f"{_META}/{{type}}",
            path={"project": project_key(project), "type": issue_type_id},
        )
        fields = by_offset(
            self._connection,
            operation,
            _create_fields,
            lambda page: page.fields or page.values,
            size=_META_PAGE,
        )
        return [field async for field in fields]

    async def _create_screen(self, project: str, issue_type: str) -> frozenset[str]:
        """Return the ids of the fields on a create screen; none for a type that is not there."""
        wanted = issue_type.casefold()
        for kind in await self.get_create_types(project):
            if wanted in {kind.id, kind.name.casefold()}:
                fields = await self.get_create_fields(project, kind.id)
                return frozenset(field.field_id for field in fields)
        return frozenset()

    async def get_priorities(self) -> list[Priority]:
        """Return the instance's priorities, highest first."""
        operation = Operation(method="GET", route="/rest/api/{api}/priority")
        return await self._connection.run(operation, _priorities)

    async def get_field_ids(self, name: str) -> list[str]:
        """Return the ids of the fields that people call `name`, whatever its case.

        Names are not unique: a team-managed project has fields of its own. Nothing is remembered
        here; `get_field_id` remembers.
        """
        wanted = name.casefold()
        return [field.id for field in await self.get_fields() if field.name.casefold() == wanted]

    async def get_field_id(self, name: str) -> str:
        """Return the id of the one field that people call `name`, for `Issue.field` and `fields`.

        The instance's fields are fetched once, and again for a name that is not among them.

        Raises:
            FieldUnclear: no field is called so, or several are.
        """
        return await self._field_names.find_id(name)

    async def get_fields(self) -> list[FieldInfo]:
        """Return all fields of the instance, custom ones included."""
        operation = Operation(method="GET", route="/rest/api/{api}/field")
        return await self._connection.run(operation, _fields)

    async def myself(self) -> User:
        """Return the account these credentials belong to; the check that a login works.

        Raises:
            AuthFailed: the credentials are not accepted, or were taken for nobody's.
        """
        operation = Operation(method="GET", route="/rest/api/{api}/myself")
        user = await self._connection.run(operation, _user)
        if user.id is None:
            raise AuthFailed("Jira answered without saying who we are", vendor="jira", status=200)
        return user

    async def server_info(self) -> ServerInfo:
        """Return what the instance says of itself: kind, version, address."""
        return await self._connection.server_info()
