"""The parts of a webhook's body, typed, and how one is read whatever it holds. Pure.

In: one member of a body, undecoded. Out: a frozen value; members of another shape are absent and
take nothing else with them. Must not: raise, or know which event has which part. Next room:
`events` puts the parts together.
"""

from __future__ import annotations

from functools import cache
from types import NoneType
from typing import Any, Final, TypeVar, get_args

import msgspec

from llm_integrations._core.codec import Raw, Undecodable, decode

__all__ = [
    "Changelog",
    "ChangelogItem",
    "WebhookAttachment",
    "WebhookBoard",
    "WebhookComment",
    "WebhookIssue",
    "WebhookIssueLink",
    "WebhookLocation",
    "WebhookProject",
    "WebhookSprint",
    "WebhookThing",
    "WebhookUser",
    "WebhookVersion",
    "WebhookWorklog",
    "Wire",
    "read_part",
]

T = TypeVar("T")

_parts: Final = msgspec.json.Decoder(dict[str, Raw])


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of payload parts: camelCase outside, unknown members ignored."""


class WebhookUser(Wire, frozen=True, kw_only=True):
    """A person or app in a payload: `accountId` on Cloud, `name` and `key` on Data Center."""

    account_id: str | None = None
    name: str | None = None
    key: str | None = None
    display_name: str | None = None
    account_type: str | None = None

    @property
    def id(self) -> str | None:
        """What REST calls take for this user: the account id, on Data Center the name."""
        return self.account_id or self.name or self.key


class ChangelogItem(Wire, frozen=True, kw_only=True):
    """One changed field: ids in `from_` and `to`, what people read in the strings."""

    field: str = ""
    fieldtype: str = msgspec.field(name="fieldtype", default="")
    field_id: str | None = None
    from_: str | None = msgspec.field(name="from", default=None)
    from_string: str | None = None
    to: str | None = None
    to_string: str | None = None


class Changelog(Wire, frozen=True, kw_only=True):
    """What an update changed; the list may be empty."""

    id: str | int | None = None
    items: tuple[ChangelogItem, ...] = ()


class WebhookComment(Wire, frozen=True, kw_only=True):
    """A comment in a payload: `body` is wiki markup, never ADF."""

    id: str | int = ""
    self_: str = msgspec.field(name="self", default="")
    body: str = ""
    author: WebhookUser | None = None
    update_author: WebhookUser | None = None
    jsd_public: bool | None = None

    @property
    def author_id(self) -> str | None:
        """Who wrote it."""
        return self.author.id if self.author else None


class WebhookWorklog(Wire, frozen=True, kw_only=True):
    """Time logged; the event carries no issue but `issue_id`."""

    id: str | int = ""
    issue_id: str | int | None = None
    author: WebhookUser | None = None
    update_author: WebhookUser | None = None
    time_spent_seconds: int | None = None

    @property
    def author_id(self) -> str | None:
        """Who logged it."""
        return self.author.id if self.author else None


class WebhookThing(Wire, frozen=True, kw_only=True):
    """Anything that has an id and a name: a status, a type, a priority, a link's kind."""

    id: str | int | None = None
    key: str | None = None
    name: str | None = None


class WebhookIssue(Wire, frozen=True, kw_only=True):
    """An issue in a payload: a hint of what it was, trimmed on `comment_*`."""

    id: str | int | None = None
    key: str | None = None
    self_: str = msgspec.field(name="self", default="")
    summary: str | None = None
    issue_type: WebhookThing | None = None
    status: WebhookThing | None = None
    priority: WebhookThing | None = None
    project: WebhookThing | None = None
    assignee: WebhookUser | None = None
    reporter: WebhookUser | None = None


class WebhookSprint(Wire, frozen=True, kw_only=True):
    """A sprint; its moments are text as Jira wrote it."""

    id: int | str | None = None
    name: str = ""
    state: str = ""
    goal: str | None = None
    start_date: str | None = None
    end_date: str | None = None
    complete_date: str | None = None
    origin_board_id: int | str | None = None


class WebhookLocation(Wire, frozen=True, kw_only=True):
    """Where a board is: the project that it belongs to."""

    project_id: str | int | None = None
    project_key: str | None = None


class WebhookBoard(Wire, frozen=True, kw_only=True):
    """A board, or its configuration on `board_configuration_changed`."""

    id: int | str | None = None
    name: str = ""
    type: str = ""
    location: WebhookLocation | None = None


class WebhookProject(Wire, frozen=True, kw_only=True):
    """A project; its id is a number here and text in REST."""

    id: int | str | None = None
    key: str | None = None
    name: str = ""
    project_lead: WebhookUser | None = None


class WebhookVersion(Wire, frozen=True, kw_only=True):
    """A version; its dates are text as Jira wrote it."""

    id: str | int | None = None
    name: str = ""
    description: str | None = None
    archived: bool | None = None
    released: bool | None = None
    start_date: str | None = None
    release_date: str | None = None
    project_id: int | str | None = None


class WebhookIssueLink(Wire, frozen=True, kw_only=True):
    """A link of two issues, which are named by id only."""

    id: int | str | None = None
    source_issue_id: int | str | None = None
    destination_issue_id: int | str | None = None
    issue_link_type: WebhookThing | None = None


class WebhookAttachment(Wire, frozen=True, kw_only=True):
    """A file; `content` is where to fetch it."""

    id: str | int | None = None
    filename: str = ""
    mime_type: str | None = None
    size: int | None = None
    content: str | None = None
    author: WebhookUser | None = None


def read_part(decoder: msgspec.json.Decoder[T], raw: Raw) -> T | None:
    """Decode one part; None when it is absent, null or of another shape."""
    if not raw:
        return None
    data = bytes(raw)
    if data == b"null":
        return None
    try:
        return decode(decoder, data)
    except Undecodable:
        return _salvage(decoder, data)


def _salvage(decoder: msgspec.json.Decoder[T], data: bytes) -> T | None:
    """Read an object member by member, without those of another shape."""
    kind: object = decoder.type  # at run time also a union, which mypy does not know
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return None
    try:
        members = decode(_parts, data)
    except Undecodable:
        return None
    read = {
        name: value
        for name, wire_name, of_member in _members_of(kind)
        if (value := read_part(of_member, members.get(wire_name, Raw(b"")))) is not None
    }
    return decoder.type(**read)


@cache
def _members_of(
    kind: type[msgspec.Struct],
) -> tuple[tuple[str, str, msgspec.json.Decoder[Any]], ...]:
    """Return (name, wire name, decoder) of a part's members."""
    return tuple(
        (one.name, one.encode_name, msgspec.json.Decoder(_sole(one.type)))
        for one in msgspec.structs.fields(kind)
    )


def _sole(kind: object) -> object:
    """Return what an optional type is when it is there."""
    kinds = [one for one in get_args(kind) if one is not NoneType]
    return kinds[0] if NoneType in get_args(kind) and len(kinds) == 1 else kind
