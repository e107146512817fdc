"""What webhooks would have told, found by asking: for Data Center, and as a safety net on Cloud.

In: a client, a JQL filter, a moment or a cursor. Out: `WebhookEvent`s, oldest first: issues created
and updated, comments created and updated. Must not: write, or remember anything but its cursor.

How it misses nothing (reference: Jira page, section 3.1):
1. `updated` has minutes in JQL, in the time zone of whoever asks. So the window is told in minutes
   before the site's own now, and reaches back over what was seen already by the overlap: that much
   may the search index lag, or the clocks differ.
2. Each pass lists ids and `updated` only, newest first: an issue that changes meanwhile moves to
   the front, so that pages can repeat an issue but never skip one.
3. An issue is read when its (id, updated) is new, from the database and not from the index. Its
   events are the entries of its changelog and its comments since it was read before.
4. An issue counts as seen once whoever iterates has taken all of its events: a cursor that was
   saved in between repeats some and loses none.

Deleted issues and comments leave nothing to find, and several edits of a comment are one event. A
change that leaves no entry (a worklog, a link) comes as an update with an empty changelog, and so
does one whose history cannot be read: one odd issue must not hold up the others.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final, Self, cast

import msgspec

from llm_integrations._core.clock import Clock, SystemClock
from llm_integrations._core.codec import Undecodable, decode, encode
from llm_integrations.errors import (
    AnswerMalformed,
    APIError,
    InvalidRequest,
    NotFound,
    TransportError,
)
from llm_integrations.jira.adf import wiki
from llm_integrations.jira.calls.history import HistoryEntry
from llm_integrations.jira.client import JiraClient
from llm_integrations.jira.issue import Issue
from llm_integrations.jira.models import Comment, User
from llm_integrations.jira.webhooks.events import WebhookEvent, parse_event

__all__ = ["PollCursor", "Poller"]

_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'")
_ORDER: Final = re.compile(r"\border\s+by\b", re.IGNORECASE)
_SMALL: Final = ("issuetype", "project", "assignee", "priority", "status", "summary")
_LEFT_OUT: Final = frozenset({"comment", "worklog"})


class PollCursor(msgspec.Struct, frozen=True):
    """Where a poller stands; `dump` it with what its events led to, `load` it to go on.

    Attributes:
        floor_ms: everything before this moment (ms since 1970) is seen.
        seen: when each issue was updated that was read since then, by id.
    """

    floor_ms: int
    seen: Mapping[str, int] = {}

    def dump(self) -> str:
        """Return it as text."""
        return encode(self).decode()

    @classmethod
    def load(cls, text: str) -> Self:
        """Read what `dump` wrote.

        Raises:
            InvalidRequest: the text is something else.
        """
        try:
            return decode(msgspec.json.Decoder(cls), text.encode())
        except (Undecodable, UnicodeEncodeError):
            raise InvalidRequest("this text is no cursor of a poller") from None


class _Histories(msgspec.Struct, frozen=True):
    histories: tuple[HistoryEntry, ...] = ()
    total: int = 0


class _Comments(msgspec.Struct, frozen=True):
    comments: tuple[Comment, ...] = ()
    total: int = 0


_json: Final[msgspec.json.Decoder[dict[str, object]]] = msgspec.json.Decoder(dict[str, object])


class Poller:
    """Yields what happened on a site, as webhooks would.

    Args:
        client: whose account asks; it sees only what that account may see.
        jql: which issues; without `ORDER BY`.
        since: from when on, with a time zone; now, unless told. A cursor goes before it.
        cursor: where an earlier poller stood.
        interval_s: between the end of a pass and the next one.
        overlap_s: how far each pass looks back beyond what it has seen.
        max_backoff_s: the longest wait after errors.
        clock: time and chance; tests move it by hand.

    Example:
        poller = Poller(jira, jql="project = ABC", cursor=PollCursor.load(saved))
        async for event in poller:
            await processor.process_event(event)
            save(poller.cursor.dump())

    Errors that pass (no answer, rate limits, 5xx) are waited out, ever longer; others are raised,
    and iterating again goes on from the same place. It may be cancelled at any moment.
    """

    def __init__(
        self,
        client: JiraClient,
        *,
        jql: str = "",
        since: datetime | None = None,
        cursor: PollCursor | None = None,
        interval_s: float = 60.0,
        overlap_s: float = 300.0,
        max_backoff_s: float = 900.0,
        clock: Clock | None = None,
    ) -> None:
        if _ORDER.search(_QUOTED.sub("", jql)) is not None:
            raise InvalidRequest("the order is the poller's: leave ORDER BY out of its JQL")
        if since is not None and since.tzinfo is None:
            raise InvalidRequest("a moment needs a time zone")
        if interval_s <= 0 or overlap_s < 60:
            raise InvalidRequest("interval_s must be above 0, overlap_s at least 60")
        self._client = client
        self._jql = f"({jql}) AND " if jql.strip() else ""
        self._interval_s = interval_s
        self._overlap_ms = int(overlap_s * 1000)
        self._max_backoff_s = max_backoff_s
        self._clock = clock or SystemClock()
        start = PollCursor(_ms(since or self._clock.now()))
        self._floor_ms = (cursor or start).floor_ms
        self._seen = dict((cursor or start).seen)

    @property
    def cursor(self) -> PollCursor:
        """Where it stands now: all events before those of the issue in hand are taken."""
        return PollCursor(self._floor_ms, dict(self._seen))

    async def __aiter__(self) -> AsyncIterator[WebhookEvent]:
        """Yield events for ever."""
        failures = 0
        while True:
            try:
                async with aclosing(self.poll()) as events:
                    async for event in events:
                        yield event
                failures, delay_s = 0, self._interval_s
            except (APIError, TransportError) as error:
                delay_s = self._backoff_s(error, failures)
                failures += 1
            await self._clock.sleep(delay_s)

    async def poll(self) -> AsyncGenerator[WebhookEvent, None]:
        """Yield what is new now, in one pass.

        Raises:
            APIError: Jira refused; what was yielded is not yielded again.
            TransportError: no answer came.
        """
        for issue_id in await self._changed():
            after_ms = self._seen.get(issue_id, self._floor_ms)
            try:
                issue = await self._client.get_issue(issue_id, expand=["changelog"])
                events = await self._events(issue, after_ms)
            except NotFound:
                continue  # deleted, or moved out of sight, since it was listed
            for event in events:
                yield event
            self._seen[issue_id] = _ms(issue.fields.updated)
        newest = max(self._seen.values(), default=0)
        self._floor_ms = max(self._floor_ms, newest - self._overlap_ms)
        self._seen = {key: ms for key, ms in self._seen.items() if ms > self._floor_ms}

    async def _changed(self) -> list[str]:
        """Return the ids of the issues that changed since they were seen, oldest change first."""
        age_ms = max(_ms(self._clock.now()) - self._floor_ms, 0) + self._overlap_ms
        jql = f'{self._jql}updated >= "-{math.ceil(age_ms / 60_000) + 1}m" ORDER BY updated DESC'
        found: dict[str, int] = {}
        async for issue in self._client.iter_issues(jql, fields=["updated"]):
            updated_ms = _ms(issue.fields.updated)
            if updated_ms > self._seen.get(issue.id, self._floor_ms):
                found[issue.id] = max(updated_ms, found.get(issue.id, 0))
        return sorted(found, key=lambda issue_id: (found[issue_id], int(issue_id)))

    async def _events(self, issue: Issue, after_ms: int) -> list[WebhookEvent]:
        """Return what happened to an issue after a moment, oldest first."""
        whole = _as_webhooks_show(issue)
        bodies: list[dict[str, object]] = []
        if _ms(issue.fields.created) > after_ms:
            actor = issue.fields.creator or issue.fields.reporter
            about = _about("jira:issue_created", _ms(issue.fields.created), actor, whole)
            bodies.append(about | {"issue_event_type_name": "issue_created"})
        entries = await self._entries(issue)
        bodies += [_updated(entry, whole) for entry in entries if _ms(entry.created) > after_ms]
        short = _trimmed(whole)
        for comment in await self._comments(issue):
            if _ms(comment.created) > after_ms:
                bodies.append(_commented("comment_created", comment, short))
            elif _ms(comment.updated) > after_ms:
                bodies.append(_commented("comment_updated", comment, short))
        if not bodies and _ms(issue.fields.updated) > after_ms:
            bodies.append(_updated(HistoryEntry(created=issue.fields.updated), whole))
        bodies.sort(key=lambda body: cast("int", body["timestamp"]))
        return [parse_event(encode(body)) for body in bodies]

    async def _entries(self, issue: Issue) -> Iterable[HistoryEntry]:
        """Return the changelog; Cloud gives only the newest with the issue."""
        try:
            told = issue.member("changelog", type=_Histories) or _Histories()
            if told.total <= len(told.histories):
                return told.histories
        except Undecodable:
            pass  # the list itself reads what the issue shows oddly, such as nulls
        try:
            return [entry async for entry in self._client.iter_changelog(issue.id)]
        except AnswerMalformed:
            return ()

    async def _comments(self, issue: Issue) -> Iterable[Comment]:
        """Return the comments; the issue itself may bring only some."""
        try:
            told = issue.field("comment", type=_Comments) or _Comments()
            if told.total <= len(told.comments):
                return told.comments
        except Undecodable:
            pass
        try:
            return [comment async for comment in self._client.iter_comments(issue.id)]
        except AnswerMalformed:
            return ()

    def _backoff_s(self, error: APIError | TransportError, failures: int) -> float:
        """Return how long to wait after an error that passes; raise the others."""
        named_s = 0.0
        if isinstance(error, APIError):
            if not error.retryable:
                raise error
            named_s = error.retry_after_s or 0.0
        longest = min(self._interval_s * 2.0 ** min(failures, 16), self._max_backoff_s)
        return max(longest * (0.5 + self._clock.random() / 2), named_s)


def _about(
    name: str, at_ms: int, actor: User | None, issue: Mapping[str, object]
) -> dict[str, object]:
    body: dict[str, object] = {"timestamp": at_ms, "webhookEvent": name}
    if actor is not None:
        body["user"] = actor
    return body | {"issue": issue}


def _updated(entry: HistoryEntry, issue: Mapping[str, object]) -> dict[str, object]:
    """Return the body of an update, with the finer name that Jira gives it."""
    fields = {item.field.lower() for item in entry.items}
    finer = "issue_assigned" if fields == {"assignee"} else "issue_updated"
    return _about("jira:issue_updated", _ms(entry.created), entry.author, issue) | {
        "issue_event_type_name": "issue_generic" if "status" in fields else finer,
        "changelog": {"id": entry.id, "items": entry.items},
    }


def _commented(name: str, comment: Comment, issue: Mapping[str, object]) -> dict[str, object]:
    """Return the body of a comment's event; like Jira's own it has no `user`."""
    is_new = name == "comment_created"
    told: dict[str, object] = {
        "id": comment.id,
        "body": _wiki(comment.body) or "",
        "author": comment.author,
        "updateAuthor": comment.update_author or comment.author,
        "created": comment.created,
        "updated": comment.updated,
    }
    shown = {key: value for key, value in told.items() if value is not None}
    at_ms = _ms(comment.created if is_new else comment.updated)
    return _about(name, at_ms, None, issue) | {"comment": shown}


def _as_webhooks_show(issue: Issue) -> dict[str, object]:
    """Return an issue in the form of version 2, whose texts are wiki markup."""
    whole = decode(_json, issue.raw)
    fields = cast("dict[str, object]", whole.get("fields") or {})
    shown = {name: _wiki(value) for name, value in fields.items() if name not in _LEFT_OUT}
    members = {name: whole[name] for name in ("id", "self", "key") if name in whole}
    return members | {"fields": shown}


def _trimmed(issue: Mapping[str, object]) -> dict[str, object]:
    """Return the short issue of a comment's event."""
    fields = cast("Mapping[str, object]", issue["fields"])
    return dict(issue) | {"fields": {name: fields[name] for name in _SMALL if name in fields}}


def _wiki(value: object) -> object:
    if isinstance(value, dict) and value.get("type") == "doc":
        return wiki.from_adf(value)
    return value


def _ms(moment: datetime | None) -> int:
    if moment is None:
        return 0
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)
