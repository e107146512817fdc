"""What the loopback server answers and the webhooks that are sent: made up, of realistic size."""

from __future__ import annotations

import hashlib
import hmac
import json
from functools import cache
from itertools import cycle, islice

__all__ = [
    "CREATED",
    "ISSUE",
    "ISSUES",
    "ISSUE_PAGE",
    "MESSAGE",
    "MODEL",
    "PAGES",
    "SECRET",
    "page_of_many",
    "stream_events",
    "webhook_body",
    "webhook_request",
]

MODEL = "claude-sonnet-5-5"
SECRET = "bench-secret"
ISSUES = 300
WORDS = (
    "the gateway answers slowly after each deployment because the pool is cold and every worker"
    " opens its own connections while the health check already counts it as ready"
).split()


def text(words: int) -> str:
    return " ".join(islice(cycle(WORDS), words))


def usage(output_tokens: int) -> dict[str, object]:
    return {
        "input_tokens": 412,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output_tokens,
        "service_tier": "standard",
        "inference_geo": "global",
    }


MESSAGE = json.dumps(
    {
        "id": "msg_01Bench00000000000000000",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": text(180)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage(231),
    }
).encode()


@cache
def stream_events(mode: str, deltas: int) -> tuple[bytes, ...]:
    """Return a message of so many deltas as server-sent events.

    In the mode "arguments" they are pieces of one tool call's input, else of a text.
    """
    message = json.loads(MESSAGE) | {"content": [], "stop_reason": None, "usage": usage(1)}
    block, pieces = tool_call(deltas) if mode == "arguments" else spoken(deltas)
    events: list[dict[str, object]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "ping"},
    ]
    events += [{"type": "content_block_delta", "index": 0, "delta": piece} for piece in pieces]
    events += [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": usage(deltas * 2),
        },
        {"type": "message_stop"},
    ]
    return tuple(
        b"event: %b\ndata: %b\n\n"
        % (str(event["type"]).encode(), json.dumps(event, separators=(",", ":")).encode())
        for event in events
    )


def spoken(deltas: int) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Return a text block as it starts, and its deltas of two words each."""
    words = cycle(WORDS)
    pieces: list[dict[str, object]] = [
        {"type": "text_delta", "text": f" {next(words)} {next(words)}"} for _ in range(deltas)
    ]
    return {"type": "text", "text": ""}, pieces


def tool_call(deltas: int) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Return a tool call as it starts, and its input as deltas of twelve characters each."""
    size = deltas * 12
    lines = [f"{number:6}: {text(12):28.28}" for number in range((size - 11) // 39)]
    whole = json.dumps({"lines": lines}, separators=(",", ":")).ljust(size)
    pieces: list[dict[str, object]] = [
        {"type": "input_json_delta", "partial_json": whole[at : at + 12]}
        for at in range(0, size, 12)
    ]
    block: dict[str, object] = {"type": "tool_use", "id": "toolu_01Bench", "name": "sort"}
    return block | {"input": {}}, pieces


def person(number: int) -> dict[str, object]:
    host = "https://bench.atlassian.net"
    return {
        "self": f"{host}/rest/api/3/user?accountId=5b10a2844c20165700ede2{number:02d}",
        "accountId": f"5b10a2844c20165700ede2{number:02d}",
        "displayName": f"Person Number {number}",
        "active": True,
        "timeZone": "Europe/Berlin",
        "accountType": "atlassian",
        "avatarUrls": {
            f"{size}x{size}": f"https://avatar.example/{number}/{size}" for size in (16, 24, 32, 48)
        },
    }


def named(kind: str, identity: str, name: str) -> dict[str, object]:
    return {
        "self": f"https://bench.atlassian.net/rest/api/3/{kind}/{identity}",
        "id": identity,
        "name": name,
        "description": f"{name}: {text(12)}",
        "iconUrl": f"https://bench.atlassian.net/images/icons/{kind}/{identity}.svg",
    }


def paragraphs(count: int) -> dict[str, object]:
    lines = [
        {"type": "paragraph", "content": [{"type": "text", "text": f"{number}: {text(28)}"}]}
        for number in range(count)
    ]
    return {"type": "doc", "version": 1, "content": lines}


def issue(number: int) -> dict[str, object]:
    """Return an issue of about 8 KB, as `GET /issue/{key}` on Cloud shows one."""
    category = {"id": 4, "key": "indeterminate", "colorName": "yellow", "name": "In Progress"}
    fields: dict[str, object] = {
        "summary": f"{text(9)} ({number})",
        "description": paragraphs(9),
        "status": named("status", "3", "In Progress") | {"statusCategory": category},
        "priority": named("priority", "2", "High"),
        "issuetype": named("issuetype", "10004", "Bug") | {"subtask": False, "hierarchyLevel": 0},
        "project": {"id": "10000", "key": "BEN", "name": "Bench", "projectTypeKey": "software"},
        "labels": ["pool", "deployment", "slow-start"],
        "components": [named("component", f"100{index}", f"Part {index}") for index in range(3)],
        "fixVersions": [{"id": "10100", "name": "4.2", "released": False, "archived": False}],
        "reporter": person(1),
        "creator": person(1),
        "assignee": person(2),
        "created": "2026-11-02T09:14:33.123+0100",
        "updated": "2026-11-20T16:01:07.456+0100",
        "duedate": "2026-12-01",
        "resolution": None,
        "subtasks": [],
        "votes": {"votes": 3, "hasVoted": False},
        "watches": {"watchCount": 7, "isWatching": True},
        "timetracking": {},
    }
    fields |= {f"customfield_{10_000 + index}": None for index in range(60)}
    fields |= {f"customfield_{10_100 + index}": float(index) for index in range(10)}
    return {
        "expand": "renderedFields,names,schema,operations,editmeta,changelog",
        "id": str(10_000 + number),
        "self": f"https://bench.atlassian.net/rest/api/3/issue/{10_000 + number}",
        "key": f"BEN-{number}",
        "fields": fields,
    }


ISSUE = json.dumps(issue(1)).encode()
ISSUE_PAGE = json.dumps(
    {"issues": [issue(number) for number in range(100)], "isLast": True}
).encode()
CREATED = json.dumps({name: json.loads(ISSUE)[name] for name in ("id", "key", "self")}).encode()
PAGES = 100


def page_of_many(number: int) -> bytes:
    """Return a page of a search of `PAGES` pages, with the token of the next one."""
    page = number % PAGES
    if page == PAGES - 1:
        return ISSUE_PAGE
    return ISSUE_PAGE.removesuffix(b"true}") + b'false, "nextPageToken": "page-%d"}' % (page + 1)


@cache
def template() -> tuple[str, str]:
    """Return what stands before and after the parts of a webhook body that change."""
    event = {
        "webhookEvent": "jira:issue_created",
        "issue_event_type_name": "issue_created",
        "user": person(1),
        "issue": {"fields": {"project": {"id": "10000", "key": "BEN"}, "description": text(450)}},
    }
    body = json.dumps(event)
    at = body.index('"fields"')
    return body[1:at], body[at:-1]


def webhook_body(number: int) -> bytes:
    """Return the body of about 4 KB that tells of an issue; there are `ISSUES` of them."""
    before, after = template()
    which = number % ISSUES
    issue_id = f'"id":"{20_000 + which}","key":"BEN-{which}",'
    return f'{{"timestamp":{1_700_000_000_000 + number},{before}{issue_id}{after}}}'.encode()


def webhook_request(number: int) -> bytes:
    """Return a signed webhook as bytes to send."""
    body = webhook_body(number)
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    head = (
        "POST /webhooks/jira/bench HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json"
        f"\r\nX-Atlassian-Webhook-Identifier: bench-{number}\r\nX-Hub-Signature: sha256={signature}"
        f"\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
