"""Says yes, no or "show it to a person" to each action. Pure: facts and rules in, verdict out.

The text of a ticket is written by anybody, and Claude reads it; so an action is judged as if its
text came from the ticket's author. First match wins:

1. The project is not mapped: refuse.
2. The action's type is not allow-listed: refuse.
3. A field it sets is not allow-listed: refuse.
4. Its text is longer than a comment may be, mentions people, or links to a host that is not
   allow-listed (a link or image is how a model is made to leak what it has read): refuse. A text
   is read as written, with its backslashes taken out, and as the links that Jira will be sent:
   readers of URLs disagree, so what is not plainly an allowed host is none.
5. This service wrote too often on the issue within the last hour (two bots answering each other
   look like this): refuse.
6. Dry run: propose, write nothing.
7. Else: allow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

import msgspec

from llm_integrations.jira import adf
from llm_integrations.service.actions import (
    AddComment,
    AddLabels,
    EditComment,
    NoAction,
    SetFields,
    action_name,
)
from llm_integrations.service.marks import is_marked_at_foot

if TYPE_CHECKING:
    from llm_integrations.jira.webhooks.events import WebhookEvent
    from llm_integrations.service.actions import Action

__all__ = ["Facts", "PolicyRules", "Verdict", "is_own_write", "judge"]

COMMENT_CAP: Final = 32_000  # Jira takes 32,767 characters; the rest is our footer's

# "scheme://rest", "//host", "www." and "mailto:" are what Jira and browsers turn into links by
# themselves.
_LINK: Final = re.compile(
    r"(?:(?:[a-z][a-z0-9+.-]*:)?//|\bwww\.|\bmailto:)[^\s<>()\[\]|\"'`]+", re.IGNORECASE
)
# Nothing else is a host here: browsers read "evil.test\\@ok.test" and "evil.test*@ok.test" in ways
# of their own.
_AUTHORITY: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*\.?(?::[0-9]{1,5})?", re.IGNORECASE)
_ESCAPE: Final = re.compile(r"\\([!-/:-@\[-`{-~])")
_MARKDOWN_TARGET: Final = re.compile(r"\]\(\s*<?([^)\s>]+)")
_WIKI_TARGET: Final = re.compile(r"\[[^\]|]*\|([^\]]+)\]")
_MENTION: Final = re.compile(r"\[~[^\]]*\]")


class PolicyRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator allows.

    Attributes:
        mode: "dry-run" proposes only; "apply" writes.
        projects: keys of the projects that may be written to.
        actions: names of allowed action types.
        fields: ids of the fields that `SetFields` may set.
        link_hosts: hosts that a text may link to.
        storm_limit: writes on one issue within an hour before the storm guard closes.
    """

    mode: Literal["dry-run", "apply"] = "dry-run"
    projects: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset({"AddComment", "EditComment", "AddLabels", "SetFields"})
    fields: frozenset[str] = frozenset({"priority", "components", "issuetype"})
    link_hosts: frozenset[str] = frozenset()
    storm_limit: int = 5


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is true when an action is judged."""

    project_key: str
    writes_last_hour: int = 0


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of an action, and why."""

    decision: Literal["allow", "propose", "refuse"]
    reason: str = ""


def judge(action: Action, facts: Facts, rules: PolicyRules) -> Verdict:
    """Return the verdict on one action."""
    if isinstance(action, NoAction):
        return Verdict("allow")
    refusal = (
        _project_refusal(facts, rules)
        or _allow_list_refusal(action, rules)
        or _empty_refusal(action)
        or next((r for text in _texts(action) if (r := _text_refusal(text, rules))), "")
        or _mention_refusal(action)
        or _storm_refusal(facts, rules)
    )
    if refusal:
        return Verdict("refuse", refusal)
    return Verdict("allow") if rules.mode == "apply" else Verdict("propose", "dry run")


def is_own_write(event: WebhookEvent, *, own_account_id: str, own_fields: frozenset[str]) -> bool:
    """Tell whether this service's own write caused the event.

    The account alone does not say so: many services run under a person's token, and what that
    person types must still be handled. A comment is ours when our account wrote it and our mark
    stands at its foot; another change is ours when our account made it and it touches only fields
    that this service set on the issue lately.

    Args:
        event: what arrived.
        own_account_id: who the service is at Jira.
        own_fields: names of the fields that the service set on this issue within the last hour.
    """
    if not own_account_id or event.actor_id != own_account_id:
        return False
    if event.comment is not None:
        return is_marked_at_foot(event.comment.body)
    items = event.changelog.items if event.changelog is not None else ()
    changed = {item.field.lower() for item in items}
    return bool(changed) and changed <= own_fields


def _project_refusal(facts: Facts, rules: PolicyRules) -> str:
    if facts.project_key in rules.projects:
        return ""
    return f"project {facts.project_key or 'unknown'} is not mapped"


def _allow_list_refusal(action: Action, rules: PolicyRules) -> str:
    name = action_name(action)
    if name not in rules.actions:
        return f"{name} is not allowed"
    if isinstance(action, SetFields):
        barred = sorted(action.fields.keys() - rules.fields)
        if barred:
            return f"field {barred[0]} is not allowed"
    return ""


def _mention_refusal(action: Action) -> str:
    """Refuse a rich text of ready-made nodes that names a person."""
    if isinstance(action, SetFields) and _has_mention(action.fields):
        return "mention of a person is not allowed"
    return ""


def _has_mention(value: object) -> bool:
    if isinstance(value, Mapping):
        return value.get("type") == "mention" or any(map(_has_mention, value.values()))
    return isinstance(value, list | tuple) and any(map(_has_mention, value))


def _storm_refusal(facts: Facts, rules: PolicyRules) -> str:
    if facts.writes_last_hour < rules.storm_limit:
        return ""
    return f"storm: {facts.writes_last_hour} writes on this issue within an hour"


def _empty_refusal(action: Action) -> str:
    """Refuse a comment that says nothing, as an empty answer makes one: it would be a foot only."""
    if isinstance(action, AddComment | EditComment) and not action.text.strip():
        return "the text is empty"
    return ""


def _text_refusal(text: str, rules: PolicyRules) -> str:
    if len(text) > COMMENT_CAP:
        return f"text of {len(text)} characters is longer than {COMMENT_CAP}"
    if _MENTION.search(text) or _MENTION.search(_ESCAPE.sub(r"\1", text)):
        return "mention of a person is not allowed"
    allowed = {host.lower() for host in rules.link_hosts}
    for target in _targets(text):
        host = _host(target)
        if not host or host not in allowed:
            return f"link to {host or 'an unnamed place'} is not allowed"
    return ""


def _targets(text: str) -> Iterator[str]:
    """Yield everything in a text that may become a link."""
    for form in dict.fromkeys((text, _ESCAPE.sub(r"\1", text))):
        for found in (_LINK, _MARKDOWN_TARGET, _WIKI_TARGET):
            yield from found.findall(form)
    yield from _hrefs(adf.from_markdown(text, fences=False))


def _hrefs(node: object) -> Iterator[str]:
    """Yield the links of an ADF document."""
    if isinstance(node, Mapping):
        href = node.get("href")
        if isinstance(href, str):
            yield href
        for member in node.values():
            yield from _hrefs(member)
    elif isinstance(node, list):
        for member in node:
            yield from _hrefs(member)


def _host(target: str) -> str:
    """Return the host a link leads to, in lower case; "" when it cannot be told."""
    if target.lower().startswith("www."):
        target = "//" + target
    try:
        authority = urlsplit(target).netloc
    except ValueError:
        return ""
    if not _AUTHORITY.fullmatch(authority):
        return ""
    return authority.partition(":")[0].rstrip(".").lower()


def _texts(action: Action) -> Iterator[str]:
    """Yield every text that an action would write."""
    match action:
        case AddComment(text=text) | EditComment(text=text):
            yield text
        case SetFields(fields=fields):
            yield from _strings(fields)
        case AddLabels(labels=labels):
            yield from labels
        case _:
            return


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from _strings(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _strings(member)
