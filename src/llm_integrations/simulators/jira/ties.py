"""What issues are tied to: worklogs, links, attachments, watchers; and their rules.

In flow an actor, an issue and the members of a request; out flow records. Kept beside the issues
and not in them, since Jira gives each of these its own resource. A rule that says no raises
`Refused`; then nothing has changed. Knows no HTTP; events are `state`'s to announce.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from .clock import jira_time
from .fields import read_rich
from .records import Issue, Json, LinkType, RichText, User
from .refusal import Refused, bad_field

_STARTED: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4}")
_SPENT: Final = re.compile(r"(?:(\d+)w)? ?(?:(\d+)d)? ?(?:(\d+)h)? ?(?:(\d+)m)?")
_UNITS_S: Final = (5 * 8 * 3600, 8 * 3600, 3600, 60)
LINK_TYPES: Final = (
    LinkType("10000", "Blocks", "is blocked by", "blocks"),
    LinkType("10001", "Duplicate", "is duplicated by", "duplicates"),
    LinkType("10003", "Relates", "relates to", "relates to"),
)


@dataclass(slots=True)
class Worklog:
    """Time spent on an issue."""

    id: str
    issue_id: str
    author: User
    started: str
    seconds: int
    comment: RichText | None
    created_ms: int
    updated_ms: int


@dataclass(slots=True, frozen=True)
class IssueLink:
    """Two issues and the kind of link between them."""

    id: str
    type: LinkType
    inward: Issue
    outward: Issue


@dataclass(slots=True)
class RemoteLink:
    """A link from an issue to a page elsewhere."""

    id: int
    global_id: str | None
    url: str
    title: str
    summary: str | None = None
    relationship: str | None = None

    def change(self, sent: Json) -> None:
        """Take over what a request says of it, or refuse."""
        thing = sent.get("object")
        if not isinstance(thing, dict) or not thing.get("url") or not thing.get("title"):
            raise Refused(400, errors={"object": "The fields 'url' and 'title' are required."})
        self.global_id = sent.get("globalId")
        self.url, self.title = str(thing["url"]), str(thing["title"])
        self.summary, self.relationship = thing.get("summary"), sent.get("relationship")


@dataclass(slots=True, frozen=True)
class Attachment:
    """A file of an issue."""

    id: str
    issue_id: str
    filename: str
    mime_type: str
    content: bytes
    author: User
    created_ms: int


@dataclass(slots=True)
class Ties:
    """All ties of a site, by issue id."""

    worklogs: dict[str, list[Worklog]] = field(default_factory=lambda: defaultdict(list))
    remote_links: dict[str, list[RemoteLink]] = field(default_factory=lambda: defaultdict(list))
    attachments: dict[str, list[Attachment]] = field(default_factory=lambda: defaultdict(list))
    watchers: dict[str, list[User]] = field(default_factory=lambda: defaultdict(list))
    deleted_worklogs: list[tuple[str, int]] = field(default_factory=list)
    links: list[IssueLink] = field(default_factory=list)
    _ids: count[int] = field(default_factory=lambda: count(400_000))

    def links_of(self, issue: Issue) -> list[IssueLink]:
        """Return the links at either end of which an issue stands."""
        return [link for link in self.links if issue in (link.inward, link.outward)]

    def add_worklog(
        self, actor: User, issue: Issue, sent: Json, now_ms: int, *, documents: bool
    ) -> Worklog:
        """Log time, from now on when no start is sent."""
        sent = {"started": jira_time(now_ms)} | sent
        seconds, started, comment = _worklog_members(sent, documents=documents)
        worklog = Worklog(
            str(next(self._ids)), issue.id, actor, started, seconds, comment, now_ms, now_ms
        )
        self.worklogs[issue.id].append(worklog)
        return worklog

    def worklog(self, issue: Issue, worklog_id: str) -> Worklog:
        """Return a worklog of an issue or refuse with 404."""
        for worklog in self.worklogs[issue.id]:
            if worklog.id == worklog_id:
                return worklog
        raise Refused(404, f"Cannot find worklog with id: '{worklog_id}'.")

    def edit_worklog(self, worklog: Worklog, sent: Json, now_ms: int, *, documents: bool) -> None:
        """Change a worklog; what is not sent stays."""
        before: Json = {"started": worklog.started}
        if "timeSpent" not in sent:
            before["timeSpentSeconds"] = worklog.seconds
        seconds, started, comment = _worklog_members(before | sent, documents=documents)
        worklog.seconds, worklog.started, worklog.updated_ms = seconds, started, now_ms
        worklog.comment = comment if "comment" in sent else worklog.comment

    def attach(
        self, actor: User, issue: Issue, file: tuple[str, str, bytes], now_ms: int
    ) -> Attachment:
        """Keep a file: its name, media type and content."""
        attachment = Attachment(str(next(self._ids)), issue.id, *file, actor, now_ms)
        self.attachments[issue.id].append(attachment)
        return attachment

    def attachment(self, attachment_id: str) -> Attachment:
        """Return an attachment or refuse with 404."""
        for attachments in self.attachments.values():
            for attachment in attachments:
                if attachment.id == attachment_id:
                    return attachment
        raise Refused(404, f"The attachment with id '{attachment_id}' does not exist")

    def link(self, kind: str, inward: Issue, outward: Issue) -> IssueLink:
        """Link two issues; the same link twice is one link."""
        found = next((each for each in LINK_TYPES if kind in {each.name, each.id}), None)
        if found is None:
            raise Refused(404, f"No issue link type with name '{kind}' found.")
        if inward is outward:
            raise Refused(400, "You cannot link an issue to itself.")
        for link in self.links:
            if (link.type, link.inward, link.outward) == (found, inward, outward):
                return link
        link = IssueLink(str(next(self._ids)), found, inward, outward)
        self.links.append(link)
        return link

    def unlink(self, link_id: str) -> IssueLink:
        """Remove a link or refuse with 404."""
        for link in self.links:
            if link.id == link_id:
                self.links.remove(link)
                return link
        raise Refused(404, f"No issue link with id '{link_id}' exists.")

    def set_remote_link(self, issue: Issue, sent: Json) -> tuple[RemoteLink, bool]:
        """Make a remote link, or change the one of the same global id; True when it is new."""
        global_id = sent.get("globalId")
        links = self.remote_links[issue.id]
        known = [link for link in links if global_id and link.global_id == global_id]
        link = known[0] if known else RemoteLink(next(self._ids), global_id, "", "")
        link.change(sent)
        if not known:
            links.append(link)
        return link, not known

    def forget(self, issue: Issue) -> None:
        """Drop the ties of an issue that is gone."""
        self.links = [link for link in self.links if issue not in (link.inward, link.outward)]
        for by_issue in (self.worklogs, self.remote_links, self.watchers, self.attachments):
            by_issue.pop(issue.id, None)


def spent(seconds: int) -> str:
    """Write a duration as Jira does: working weeks, days, hours and minutes."""
    parts, left = [], seconds
    for letter, unit_s in zip("wdhm", _UNITS_S, strict=True):
        number, left = divmod(left, unit_s)
        if number:
            parts.append(f"{number}{letter}")
    return " ".join(parts) or "0m"


def _worklog_members(sent: Json, *, documents: bool) -> tuple[int, str, RichText | None]:
    """Read duration, start and comment of a worklog."""
    seconds = sent.get("timeSpentSeconds")
    if seconds is None and isinstance(sent.get("timeSpent"), str):
        match = _SPENT.fullmatch(sent["timeSpent"].strip())
        numbers = match.groups() if match else ()
        seconds = sum(
            int(number or 0) * unit_s for number, unit_s in zip(numbers, _UNITS_S, strict=False)
        )
    if not isinstance(seconds, int) or seconds < 60:
        raise Refused(400, errors={"timeLogged": "Worklog must not be null or below a minute."})
    started = sent.get("started")
    if not isinstance(started, str) or not _STARTED.fullmatch(started):
        raise bad_field("started", "Invalid date format. Please enter yyyy-MM-dd'T'HH:mm:ss.SSSZ")
    comment = sent.get("comment")
    rich = None if comment is None else read_rich(comment, "comment", documents=documents)
    return seconds, started, rich
