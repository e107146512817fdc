"""An issue as it came: typed where everybody looks, undecoded elsewhere. Pure.

In: the JSON of one issue or of a page of them, from a read, a search or a checkpoint. Out: `Issue`.
Must not: lose a member or a field it does not know.

1. One scan of the body types what nearly everybody reads: id, key and the well-known fields.
2. All members stay there undecoded, found by a second scan that only those pay for who want one:
   `issue.field("customfield_10010", type=float)`, `issue.raw`.
3. A field of an unexpected shape is left at its default, not an error: where the scan of 1 finds
   one, 2 comes first and each issue is typed by itself, at the first look.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Final, Generic, Protocol, TypeVar, cast, overload

import msgspec

from llm_integrations._core.codec import Raw, Undecodable, decode, encode
from llm_integrations.jira.models import (
    Component,
    IssueLink,
    IssueType,
    LinkedIssue,
    Priority,
    Project,
    Resolution,
    Status,
    User,
    Version,
    Wire,
    decoded,
    rich_markdown,
)

__all__ = [
    "Issue",
    "IssueDecoder",
    "IssueFields",
    "IssuePage",
    "IssuePageDecoder",
    "JqlSearchResponse",
    "parse_issue",
]

T = TypeVar("T")
Members = dict[str, Raw]


class IssueFields(Wire, frozen=True, kw_only=True, rename=None):
    """The fields nearly every issue has; `Issue.field` reads the others."""

    summary: str = ""
    description_raw: Raw = msgspec.field(name="description", default=Raw(b"null"))
    issue_type: IssueType | None = msgspec.field(name="issuetype", default=None)
    status: Status | None = None
    priority: Priority | None = None
    resolution: Resolution | None = None
    project: Project | None = None
    parent: LinkedIssue | None = None
    assignee: User | None = None
    reporter: User | None = None
    creator: User | None = None
    labels: tuple[str, ...] = ()
    components: tuple[Component, ...] = ()
    fix_versions: tuple[Version, ...] = msgspec.field(name="fixVersions", default=())
    versions: tuple[Version, ...] = ()
    subtasks: tuple[LinkedIssue, ...] = ()
    issue_links: tuple[IssueLink, ...] = msgspec.field(name="issuelinks", default=())
    created: datetime | None = None
    updated: datetime | None = None
    due_date: str | None = msgspec.field(name="duedate", default=None)

    @property
    def description(self) -> object:
        """The description as it came: an ADF document, wiki markup, or None."""
        return decoded(self.description_raw)

    @property
    def description_markdown(self) -> str:
        """The description as Markdown, "" when there is none."""
        return rich_markdown(self.description)


class Issue:
    """An issue as it came, typed where one looks.

    Args:
        members: the top-level members of its JSON, undecoded.
    """

    __slots__ = ("__dict__", "_members")

    def __init__(self, members: dict[str, Raw]) -> None:
        self._members = members

    def __repr__(self) -> str:
        return f"Issue(key={self.key!r}, id={self.id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Issue) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.id)

    @cached_property
    def id(self) -> str:
        """The number that stays when the issue moves."""
        return str(self.member("id") or "")

    @cached_property
    def key(self) -> str:
        """The key people use; "" when the search asked for ids only."""
        return str(self.member("key") or "")

    @cached_property
    def fields(self) -> IssueFields:
        """The well-known fields, typed."""
        raw = bytes(self._members.get("fields", Raw(b"{}")))
        try:
            return decode(_fields, raw)
        except Undecodable:
            return _fields_one_by_one(self._raw_fields)

    @property
    def field_names(self) -> tuple[str, ...]:
        """Ids of all fields that came."""
        return tuple(self._raw_fields)

    @property
    def raw(self) -> bytes:
        """The issue's JSON; `parse_issue` reads it back."""
        return encode(self._members)

    @overload
    def field(self, field_id: str) -> object: ...

    @overload
    def field(self, field_id: str, *, type: type[T]) -> T | None: ...

    def field(self, field_id: str, *, type: object = object) -> object:  # noqa: A002 - the caller's word
        """Return one field by id, decoded as `type`; None when absent or null.

        Raises:
            ValueError: the field is there and of another shape.
        """
        return _typed(self._raw_fields.get(field_id), type, field_id)

    @overload
    def member(self, name: str) -> object: ...

    @overload
    def member(self, name: str, *, type: type[T]) -> T | None: ...

    def member(self, name: str, *, type: object = object) -> object:  # noqa: A002 - the caller's word
        """Return one top-level member (`changelog`, `renderedFields`), like `field`."""
        return _typed(self._members.get(name), type, name)

    @cached_property
    def _raw_fields(self) -> dict[str, Raw]:
        raw = bytes(self._members.get("fields", Raw(b"{}")))
        return {} if raw == b"null" else decode(_raw_members, raw)


class JqlSearchResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One page found; `next_page_token` is None on the last. Cloud knows no `total`."""

    issues: tuple[Issue, ...]
    next_page_token: str | None = None
    total: int | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.next_page_token is None


class IssuePage(msgspec.Struct, Generic[T], frozen=True, kw_only=True, rename="camel"):
    """A page of issues, of either style of paging."""

    issues: tuple[T, ...] = ()
    next_page_token: str | None = None
    start_at: int = 0
    total: int | None = None
    is_last: bool | None = None


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    """What one scan types of an issue."""

    id: str = ""
    key: str = ""
    fields: IssueFields = IssueFields()


class _Scan(Protocol):
    """Finds the members of the issues in a body, when somebody wants one."""

    def members(self, number: int, /) -> Members:
        """Return the members of one issue."""
        ...


class _TypedIssue(Issue):
    """An issue whose well-known parts are typed already; `scan` finds its members."""

    __slots__ = ("_number", "_scan")

    def __init__(self, known: _Known, scan: _Scan, number: int = 0) -> None:
        self.id, self.key, self.fields = known.id, known.key, known.fields
        self._scan, self._number = scan, number

    @cached_property
    def _members(self) -> Members:  # type: ignore[override] # it can be set, like the others
        return self._scan.members(self._number)


_any: Final[msgspec.json.Decoder[object]] = msgspec.json.Decoder()
_fields: Final = msgspec.json.Decoder(IssueFields)
_known: Final = msgspec.json.Decoder(_Known)
_known_page: Final = msgspec.json.Decoder(IssuePage[_Known])
_raw_members: Final[msgspec.json.Decoder[Members]] = msgspec.json.Decoder(Members)
_raw_page: Final = msgspec.json.Decoder(IssuePage[Members])


class IssueDecoder:
    """Reads one issue."""

    def decode(self, body: bytes, /) -> Issue:
        """Read one issue's JSON.

        Raises:
            Undecodable: the bytes are not a JSON object.
        """
        try:
            known = decode(_known, body)
        except Undecodable:
            return Issue(decode(_raw_members, body))
        return _TypedIssue(known, _OneScan(body))


class IssuePageDecoder:
    """Reads a page of issues."""

    def decode(self, body: bytes, /) -> IssuePage[Issue]:
        """Read a page's JSON.

        Raises:
            Undecodable: the bytes are no page of JSON objects.
        """
        try:
            page = decode(_known_page, body)
        except Undecodable:
            raw_page = decode(_raw_page, body)
            return _with_issues(raw_page, tuple(map(Issue, raw_page.issues)))
        scan = _PageScan(body)
        issues = [_TypedIssue(known, scan, number) for number, known in enumerate(page.issues)]
        return _with_issues(page, tuple(issues))


class _OneScan:
    """The members of one issue."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def members(self, _number: int) -> Members:
        """Return its members."""
        return decode(_raw_members, self._body)


class _PageScan:
    """The members of all issues of a page, found when the first of them are asked for."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def members(self, number: int) -> Members:
        """Return the members of one issue of the page."""
        return self._all[number]

    @cached_property
    def _all(self) -> tuple[Members, ...]:
        return decode(_raw_page, self._body).issues


def parse_issue(body: bytes) -> Issue:
    """Read one issue's JSON, as `Issue.raw` gives it.

    Raises:
        ValueError: the bytes are not a JSON object.
    """
    return IssueDecoder().decode(body)


def _with_issues(page: IssuePage[T], issues: tuple[Issue, ...]) -> IssuePage[Issue]:
    return IssuePage(
        issues=issues,
        next_page_token=page.next_page_token,
        start_at=page.start_at,
        total=page.total,
        is_last=page.is_last,
    )


def _typed(raw: Raw | None, type_: object, name: str) -> object:
    if raw is None or (data := bytes(raw)) == b"null":
        return None
    decoder = _any if type_ is object else msgspec.json.Decoder(cast("type[object]", type_))
    try:
        return decode(decoder, data)
    except Undecodable as error:
        raise Undecodable(f"{name}: {error}") from None


def _fields_one_by_one(members: Mapping[str, Raw]) -> IssueFields:
    """Type each field by itself, so that an odd one costs only itself."""
    found: dict[str, object] = {}
    for info in msgspec.structs.fields(IssueFields):
        raw = members.get(info.encode_name)
        if raw is None or bytes(raw) == b"null":
            continue
        try:
            found[info.name] = decode(msgspec.json.Decoder(info.type), bytes(raw))
        except Undecodable:
            continue
    return IssueFields(**found)  # type: ignore[arg-type] # each was decoded as its own type
