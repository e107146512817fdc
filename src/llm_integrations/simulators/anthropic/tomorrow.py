"""What the API may say tomorrow: unknown fields, blocks, deltas, events, stop reasons and codes.

https://platform.claude.com/docs/en/api/versioning: new values and event types may be added at any
time, and a client must take them. Every name in here is one that nobody knows. Pure.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from llm_integrations.simulators.anthropic.events import Event
from llm_integrations.simulators.anthropic.tokens import compact_json
from llm_integrations.simulators.anthropic.wire import Reply, StreamReply

__all__ = ["of_tomorrow"]

_FIELD: Final = {"tomorrow": {"known": False}}
_COUNTER: Final = {"moonlight_tokens": 7}
_STOP_REASON: Final = "starlight"
_BLOCK: Final = {"type": "hologram", "pixels": [1, 2, 3], "caption": "Simulated hologram."}
_EVENT: Final = Event({"type": "moonrise", "phase": "full"})
_GLOW: Final = {"type": "glow_delta", "glow": 1}


def of_tomorrow(reply: Reply | StreamReply) -> Reply | StreamReply:
    """Return a reply with something unknown wherever the API may add something."""
    if isinstance(reply, StreamReply):
        return replace(reply, events=_events(reply.events))
    if reply.content_type != "application/json":
        return reply
    body = json.loads(reply.body)
    match body.get("type"):
        case "message":
            body = _message(body)
            body["content"].append(_BLOCK)
        case "error":
            body["error"].setdefault("details", {"error_code": "simulated_tomorrow"})
        case _:
            pass
    return replace(reply, body=compact_json(body | _FIELD).encode())


def _message(message: dict[str, Any]) -> dict[str, Any]:
    usage = message["usage"] | _COUNTER
    stop_reason = message["stop_reason"]
    if stop_reason == "end_turn":
        stop_reason = _STOP_REASON
    return message | {"usage": usage, "stop_reason": stop_reason} | _FIELD


def _events(events: Iterable[Event]) -> Iterator[Event]:
    blocks = 0
    for event in events:
        data: dict[str, Any] = event.data
        match data["type"]:
            case "message_start":
                data = data | {"message": _message(data["message"])}
            case "content_block_start":
                blocks = data["index"] + 1
            case "content_block_stop":
                glow = {"type": "content_block_delta", "index": data["index"], "delta": _GLOW}
                yield replace(event, data=glow)
            case "message_delta":
                yield from _hologram(blocks, event)
                data = _message_delta(data)
            case _:
                pass
        yield replace(event, data=data | _FIELD)
        yield replace(_EVENT, output_tokens=event.output_tokens)


def _hologram(index: int, event: Event) -> Iterator[Event]:
    for data in (
        {"type": "content_block_start", "index": index, "content_block": _BLOCK},
        {"type": "content_block_delta", "index": index, "delta": _GLOW},
        {"type": "content_block_stop", "index": index},
    ):
        yield replace(event, data=data)


def _message_delta(data: dict[str, Any]) -> dict[str, Any]:
    delta = data["delta"] | _FIELD
    if delta["stop_reason"] == "end_turn":
        delta["stop_reason"] = _STOP_REASON
    return data | {"delta": delta, "usage": data["usage"] | _COUNTER}
