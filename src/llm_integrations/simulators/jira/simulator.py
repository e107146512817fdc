"""`JiraSimulator`: the site, its HTTP face and its webhooks, started and stopped together.

This is the object tests, the demo and the `simulate` command hold. It offers what people do at a
Jira site (create, edit, comment, move), without HTTP and with the same webhooks, and everything a
judge needs afterwards: records, requests, accepted writes, every delivery attempt.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self

from llm_integrations.simulators.faults import Fault, StatusError
from llm_integrations.simulators.loopback import LoopbackServer

from .adoption import adopt_issue
from .clock import Dice, SiteClock
from .events import Event, events_of
from .fields import FIELDS
from .limits import Limiter, Limits, UserBucket
from .oauth import OAuthServer
from .query import Search
from .records import Comment, Issue, Json, RecordedRequest, User, Write
from .render import Renderer
from .seed import OTHER_BOT, PEOPLE, new_site
from .server import Credentials, Face
from .state import Change
from .ties import Attachment
from .webhooks import Delivery, Postman, Webhook, WebhookFaults
from .wire import Desk

Deployment = Literal["Cloud", "Server"]

_NAMED: Final = frozenset({"priority", "issuetype", "resolution"})
_NAMED_LISTS: Final = frozenset({"components", "fixVersions", "versions"})


@dataclass(slots=True)
class _Bot:
    """A scripted account that answers comments of the service account, `left` times at most."""

    user: User
    replies_to: Callable[[Issue, Comment], bool]
    text: str
    left: int


class JiraSimulator:
    """A Jira site on a loopback port.

    Args:
        seed: Decides identifiers, mischief and who reported the old issues.
        credentials: What is accepted: an (e-mail, token) pair or a bearer token; any non-empty
            credentials when None.
        deployment: `Cloud` (v3 and v2, tokens) or `Server` (Data Center: v2, positions).
        latency_ms: How long answers take, drawn evenly.
        port: The port to listen on; 0 takes a free one.
        limits: True enforces Cloud's limits, or Data Center's bucket; a `Limits` that one.
        retry_delay_s: Between webhook attempts; Jira waits 5 to 15 minutes.
        webhook_faults: Seeded mischief of the deliveries; may be changed while running.
        index_lag_s: How long search does not see a new issue, unless it is reconciled.
        short_pages: Whether token-paged searches return fewer issues than asked.

    Example:
        ```python
        async with JiraSimulator() as jira:
            key = await jira.create_issue(project="DEMO", summary="It is broken")
            assert jira.issues[key].status.name == "To Do"
        ```
    """

    def __init__(  # noqa: PLR0913 - each is a switch of its own, all have defaults
        self,
        seed: int = 0,
        credentials: Credentials | None = None,
        deployment: Deployment = "Cloud",
        latency_ms: tuple[float, float] = (0, 5),
        port: int = 0,
        *,
        limits: bool | Limits = False,
        retry_delay_s: tuple[float, float] = (0.5, 1.5),
        webhook_faults: WebhookFaults | None = None,
        index_lag_s: float = 0.0,
        short_pages: bool = False,
    ) -> None:
        """Build the site; it listens from `start` on."""
        is_cloud = deployment == "Cloud"
        clock = SiteClock()
        self._site = new_site(clock, Dice(seed, "site"), is_cloud=is_cloud)
        self._postman = Postman(
            clock,
            Dice(seed, "webhooks"),
            is_cloud,
            retry_delay_s,
            webhook_faults or WebhookFaults(),
            self._wants,
        )
        # Requests and deliveries each have dice of their own: traffic does not move the mischief.
        desk = Desk(self._site, self._postman, Dice(seed, "requests"), "", index_lag_s, short_pages)
        if isinstance(limits, bool):
            usual = Limits() if is_cloud else Limits(bucket=UserBucket())
            limiter = Limiter(usual) if limits else None
        else:
            limiter = Limiter(limits)
        oauth = OAuthServer(clock, Dice(seed, "oauth"), is_cloud)
        desk.client_secrets = oauth.clients
        self._face = Face(desk, credentials, latency_ms, limiter, oauth)
        self._server = LoopbackServer(self._face, port=port)
        self._bots: list[_Bot] = []
        self._site.listeners += [self._announce, self._let_bots_answer]

    async def __aenter__(self) -> Self:
        """Start listening."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; deliveries still on their way are given up."""
        await self.stop()

    async def start(self) -> None:
        """Listen. Raises `OSError` where the port is taken."""
        await self._server.start()
        self._face.desk.base_url = self._server.base_url

    async def stop(self) -> None:
        """Give up open deliveries and stop listening."""
        await self._postman.close()
        await self._server.stop()

    # What a judge reads

    @property
    def base_url(self) -> str:
        """The address to give to a client."""
        return self._server.base_url

    @property
    def service_account_id(self) -> str:
        """The account API users act as, unless their e-mail names another one."""
        return self._site.service_account_id

    @property
    def other_bot_id(self) -> str:
        """A second robot of the site."""
        return OTHER_BOT.account_id

    @property
    def users(self) -> Mapping[str, User]:
        """The accounts, by account id."""
        return self._site.users

    @property
    def requests(self) -> Sequence[RecordedRequest]:
        """Every HTTP request that arrived, in order of arrival."""
        return self._face.requests

    @property
    def issues(self) -> Mapping[str, Issue]:
        """The issues, by key."""
        return self._site.issues

    @property
    def writes(self) -> Sequence[Write]:
        """Every accepted write, whoever made it, in order."""
        return self._site.writes

    @property
    def deliveries(self) -> Sequence[Delivery]:
        """Every attempt to deliver a webhook, in the order they ended."""
        return self._postman.deliveries

    def comments(self, issue_key: str) -> list[Comment]:
        """Return the comments of an issue, oldest first."""
        return list(self._site.issue(issue_key).comments)

    def attachments(self, issue_key: str) -> list[Attachment]:
        """Return the files of an issue, oldest first."""
        return list(self._site.ties.attachments[self._site.issue(issue_key).id])

    @property
    def upload_limit_bytes(self) -> int:
        """How large a file may be."""
        return self._site.upload_limit_bytes

    @upload_limit_bytes.setter
    def upload_limit_bytes(self, limit: int) -> None:
        self._site.upload_limit_bytes = limit

    @property
    def oauth(self) -> OAuthServer:
        """The authorization server; it listens on `base_url` too."""
        return self._face.oauth

    # What people do

    async def create_issue(
        self,
        *,
        project: str,
        summary: str,
        description: str | None = None,
        issuetype: str = "Task",
        by: str | None = None,
        **fields: Any,
    ) -> str:
        """Create an issue as a person would and return its key.

        `fields` takes names where Jira takes objects: `priority="High"`, `components=["Login"]`,
        `assignee=account_id`. Texts are wiki strings. Without `by` the first person acts.
        """
        given = {"summary": summary, "description": description, "issuetype": issuetype, **fields}
        sent = {name: value for name, value in self._sent(given).items() if value is not None}
        body = {"fields": {"project": {"key": project}, **sent}}
        return self._site.create_issue(self._actor(by), body, documents=False).key

    async def edit_issue(self, issue_key: str, *, by: str | None = None, **fields: Any) -> None:
        """Set fields of an issue; values as in `create_issue`, None clears."""
        issue = self._site.issue(issue_key)
        body = {"fields": self._sent(fields)}
        self._site.edit_issue(self._actor(by), issue, body, documents=False)

    async def delete_issue(self, issue_key: str, *, by: str | None = None) -> None:
        """Delete an issue with everything below it."""
        issue = self._site.issue(issue_key)
        self._site.delete_issue(self._actor(by), issue, with_subtasks=True)

    async def add_comment(self, issue_key: str, text: str, *, by: str | None = None) -> Comment:
        """Comment on an issue, in wiki notation."""
        issue = self._site.issue(issue_key)
        return self._site.add_comment(self._actor(by), issue, {"body": text}, documents=False)

    async def edit_comment(
        self, issue_key: str, comment_id: str, text: str, *, by: str | None = None
    ) -> None:
        """Replace the text of a comment."""
        comment = self._site.comment(comment_id, self._site.issue(issue_key))
        self._site.edit_comment(self._actor(by), comment, {"body": text}, documents=False)

    async def delete_comment(
        self, issue_key: str, comment_id: str, *, by: str | None = None
    ) -> None:
        """Delete a comment."""
        comment = self._site.comment(comment_id, self._site.issue(issue_key))
        self._site.delete_comment(self._actor(by), comment)

    async def transition(self, issue_key: str, name: str, *, by: str | None = None) -> None:
        """Move an issue along the arrow of this name.

        Raises:
            ValueError: No such arrow leaves the issue's status.
        """
        issue = self._site.issue(issue_key)
        arrows = {arrow.name: arrow for arrow in self._site.transitions_from(issue.status)}
        if name not in arrows:
            message = f"{issue.key} is {issue.status.name}: no transition {name!r} from there"
            raise ValueError(message)
        body = {"transition": {"id": arrows[name].id}}
        self._site.transition_issue(self._actor(by), issue, body, documents=False)

    def add_bot(
        self,
        account_id: str | None = None,
        *,
        replies_to: Callable[[Issue, Comment], bool] | None = None,
        text: str = "Thank you, noted.",
        limit: int = 20,
    ) -> None:
        """Let another robot answer each comment of the service account, at most `limit` times."""
        user = self._site.users[account_id or OTHER_BOT.account_id]
        self._bots.append(_Bot(user, replies_to or (lambda _issue, _comment: True), text, limit))

    # Webhooks

    @property
    def webhook_faults(self) -> WebhookFaults:
        """The mischief of deliveries queued from now on."""
        return self._postman.faults

    @webhook_faults.setter
    def webhook_faults(self, faults: WebhookFaults) -> None:
        self._postman.faults = faults

    def fail_next_webhook(
        self, fault: Fault, *, times: int = 1, event: str | None = None, issue: str | None = None
    ) -> None:
        """Queue a fault for the next attempts to deliver an event of this name, of this issue.

        `Slow`, `Dribble`, `Reset`, `Cut`, `HalfClose` and `Repeat` mean something here.
        """

        def fits(attempt: Delivery) -> bool:
            return (event is None or attempt.event == event) and (
                issue is None or attempt.issue_key == issue
            )

        self._postman.attempt_faults.add(fault, times=times, when=fits)

    def subscribe(
        self,
        url: str,
        *,
        secret: str | None = None,
        events: Iterable[str] | None = None,
        jql: str | None = None,
    ) -> int:
        """Register an admin webhook, as its REST would; every event when `events` is None."""
        wanted = None if events is None else frozenset(events)
        number = self._postman.new_id()
        self._postman.register(Webhook(number, f"webhook {number}", url, wanted, secret, jql))
        return number

    def unsubscribe(self, webhook_id: int) -> None:
        """Remove a registration; what is queued still goes out."""
        del self._postman.webhooks[webhook_id]

    def deliver(self, body: bytes, *, secret: str | None = None) -> None:
        """Queue a recorded body for every registration, byte for byte and with a new identifier.

        The issue it tells about is made known to the site first, so that it can be read back.
        With `secret` it is signed with that instead of the registration's: a forged delivery.
        """
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        told: Json = document if isinstance(document, dict) else {}
        shown = told.get("issue")
        issue = adopt_issue(self._site, shown) if isinstance(shown, dict) else None
        name = str(told.get("webhookEvent", ""))
        event = Event(name, issue.key if issue is not None else "", told)
        self._postman.post_recorded(event, body, secret)

    async def redeliver(self, delivery: Delivery) -> Delivery:
        """Send an attempt once more: same identifier, byte-equal body."""
        return await self._postman.redeliver(delivery)

    async def flush(self) -> None:
        """Wait until every queued delivery (and every bot's answer to it) has ended."""
        await self._postman.flush()

    # Faults of the HTTP side

    def fail_next(
        self,
        fault: Fault | int,
        *,
        times: int = 1,
        method: str | None = None,
        path: str | None = None,
    ) -> None:
        """Queue a fault for the next requests of this method whose path has a match of `path`.

        A number stands for an error answer of that status in Jira's envelope.
        """
        if isinstance(fault, int):
            fault = StatusError(
                status=fault,
                body={"errorMessages": ["Scripted by the simulator."], "errors": {}},
                headers={"Retry-After": "1"} if fault == 429 else {},
            )

        def fits(request: RecordedRequest) -> bool:
            return (method is None or request.method == method) and (
                path is None or re.search(path, request.path) is not None
            )

        self._face.faults.add(fault, times=times, when=fits)

    @property
    def is_anonymous_allowed(self) -> bool:
        """Whether bad credentials pass as nobody: 200, empty lists and a telling header."""
        return self._face.is_anonymous_allowed

    @is_anonymous_allowed.setter
    def is_anonymous_allowed(self, allowed: bool) -> None:
        self._face.is_anonymous_allowed = allowed

    # The inside

    def _actor(self, account_id: str | None) -> User:
        return self._site.users[account_id or PEOPLE[0].account_id]

    def _sent(self, given: Mapping[str, Any]) -> Json:
        """Turn names into the objects a v2 body has."""
        user_key = "accountId" if self._site.is_cloud else "name"
        sent: Json = {}
        for name, value in given.items():
            if value is None:
                sent[name] = None
            elif name in _NAMED:
                sent[name] = {"name": value}
            elif name in _NAMED_LISTS:
                sent[name] = [{"name": item} for item in value]
            elif name in {"assignee", "reporter"}:
                user = self._site.users[value]
                sent[name] = {user_key: user.account_id if self._site.is_cloud else user.name}
            else:
                sent[name] = list(value) if FIELDS[name].kind.many else value
        return sent

    def _announce(self, change: Change) -> None:
        """Turn a change into deliveries, drawn from the state of this very moment."""
        if not self._postman.webhooks:
            return
        renderer = Renderer(self.base_url, self._site, 2)
        for event in events_of(change, renderer):
            self._postman.post(event)

    def _wants(self, webhook: Webhook, event: Event) -> bool:
        """Say whether the event's issue is in the registration's JQL filter."""
        if webhook.jql is None:
            return True
        issue = self._site.find_issue(event.issue_key)
        user = self._site.users[self._site.service_account_id]
        search = Search(self._site, user, self._site.clock.now_s())
        return issue is not None and search.matches(webhook.jql, issue)

    def _let_bots_answer(self, change: Change) -> None:
        comment = change.comment
        if change.kind != "comment_created" or comment is None:
            return
        if comment.author_id != self._site.service_account_id:
            return
        for bot in self._bots:
            if bot.left > 0 and bot.replies_to(change.issue, comment):
                bot.left -= 1
                self._postman.run(self._answer_as(bot, change.issue.key))

    async def _answer_as(self, bot: _Bot, issue_key: str) -> None:
        """Answer a moment later, as another program would."""
        await asyncio.sleep(0)
        if issue_key in self._site.issues:
            await self.add_comment(issue_key, bot.text, by=bot.user.account_id)
