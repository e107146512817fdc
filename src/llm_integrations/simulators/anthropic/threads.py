"""Conversations that the service holds (beta `message-threads-2026-08-12`).

`thread: {"type": "create"}` keeps the conversation under the id of its answer; with
`{"type": "continue", "previous_message_id": ...}` only the new turns are sent. Each answer can be
continued once. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from llm_integrations.simulators.anthropic.errors import ApiError

__all__ = ["Threads"]

_UNSUPPORTED: Final = ("cache_control", "context_management", "fallbacks", "thinking")

Json = Mapping[str, object]
Turns = list[object]


@dataclass(slots=True)
class Threads:
    """Every conversation held, by the id of its last answer."""

    _held: dict[str, Turns] = field(default_factory=dict)
    _continued: set[str] = field(default_factory=set)

    def expanded(self, body: object) -> object:
        """Return a request with the turns it goes on from before its own.

        Raises:
            ApiError: the thread is unknown or has gone on already, or a field excludes threads.
        """
        if not isinstance(body, dict) or not isinstance(body.get("thread"), dict):
            return body
        excluded = [name for name in _UNSUPPORTED if body.get(name) is not None]
        if excluded:
            raise ApiError(
                400,
                f"thread: cannot be combined with {', '.join(excluded)}",
                error_code="thread_unsupported_request",
                details={"unsupported": excluded},
            )
        thread = body["thread"]
        own = body.get("messages")
        if thread.get("type") != "continue" or not isinstance(own, list):
            return body
        previous = str(thread.get("previous_message_id"))
        if previous not in self._held:
            message = f"thread: nothing is held for {previous}"
            raise ApiError(404, message, error_code="thread_not_found")
        if previous in self._continued:
            message = f"thread: {previous} was continued already"
            raise ApiError(400, message, error_code="thread_already_continued")
        return {**body, "messages": [*self._held[previous], *own]}

    def keep(self, body: Json, message: Json) -> None:
        """Hold a conversation that was answered, where its request asks for that."""
        thread, turns = body.get("thread"), body.get("messages")
        if not isinstance(thread, dict) or not isinstance(turns, list):
            return
        self._continued.add(str(thread.get("previous_message_id")))
        answer = {"role": "assistant", "content": message["content"]}
        self._held[str(message["id"])] = [*turns, answer]
