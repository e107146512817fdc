"""The tools that run at Anthropic: what they are asked, what they return, what they leave behind.

A text uses them by their name ("use the web_search tool"), as it does with other tools, and:
- `[[searches:3]]`: so many uses. Uses beyond the tool's `max_uses` fail, which is free; after
  the tenth the turn is paused (`pause_turn`) and goes on when it is sent back as it is.
- `[[tool-error]]`: the use fails.
- `[[make-file]]`: code execution leaves a file, which can be downloaded.
- `[[edit]]`: code execution edits a file instead of running a command.
A server of `mcp_servers` is used by the name of its server ("use the deepwiki tool").

https://platform.claude.com/docs/en/agents-and-tools/tool-use/server-tools. Pure but for the file.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from llm_integrations.simulators.anthropic.caching import InputCounts
from llm_integrations.simulators.anthropic.parts import Answer, Part, Run, complete
from llm_integrations.simulators.anthropic.prompt import blocks_of
from llm_integrations.simulators.anthropic.reading import excerpt, named_tools
from llm_integrations.simulators.anthropic.tokens import (
    TokenRule,
    compact_json,
    opaque,
    split_output,
)

__all__ = ["Loop", "ServerTools", "dangling_use", "is_server_tool"]

_PREFIXES: Final = (
    "web_search_", "web_fetch_", "code_execution_", "tool_search_tool_", "advisor_", "mcp_toolset",
)  # fmt: skip
_USES: Final = re.compile(r"\[\[searches:(\d{1,2})\]\]")
_MAX_USES_A_TURN: Final = 10
_LETTERS_A_TOKEN: Final = 4
_CONTAINER_LIFE: Final = timedelta(minutes=30)
_EDIT: Final = "[[edit]]"
_OLD_CODE_EXECUTION: Final = "code_execution_20250522"

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What a tool's use may need of the world around it."""

    rule: TokenRule
    identity: str  # makes ids its own
    now: datetime
    make_file: Callable[[str, bytes], str]  # name and content; returns the file's id


def is_server_tool(tool: Json) -> bool:
    """Whether a tool runs at Anthropic."""
    return str(tool.get("type", "")).startswith(_PREFIXES)


def dangling_use(request: Json) -> Json | None:
    """Return the last block of a paused turn that was sent back: a use without its result."""
    turns = blocks_of(request.get("messages"))
    if not turns or turns[-1].get("role") != "assistant":
        return None
    blocks = blocks_of(turns[-1].get("content"))
    return blocks[-1] if blocks and blocks[-1].get("type") == "server_tool_use" else None


class ServerTools:
    """The server tools of one request, for one answer."""

    def __init__(self, request: Json, text: str, loop: Loop) -> None:
        """Take the request, its last user text and the world."""
        self._tools = {
            str(tool.get("name") or tool.get("mcp_server_name") or tool["type"]): tool
            for tool in blocks_of(request.get("tools"))
            if is_server_tool(tool)
        }
        self._deferred = [
            str(tool.get("name"))
            for tool in blocks_of(request.get("tools"))
            if tool.get("defer_loading") is True
        ]
        self._dangling = dangling_use(request)
        self._text = text
        self._loop = loop
        self._model = str(request.get("model"))
        self._container = request.get("container")
        self._counted = {"web_search": 0, "web_fetch": 0}
        self._ran_code = False
        self._uploads: list[Part] = []

    def answer(self, following: Answer) -> Answer:
        """Return the answer with the tools' uses before what follows from them."""
        parts: list[Part] = []
        stop_reason = None
        if self._dangling is not None:
            name = str(self._dangling.get("name"))
            parts.append(self._result(name, str(self._dangling.get("id")), 0))
        else:
            for name in named_tools(list(self._tools), self._text):
                for at in range(self._uses):
                    use_id = f"srvtoolu_01{opaque(f'{self._loop.identity}:{name}:{at}', 22)}"
                    parts.append(self._use(name, use_id))
                    if at == _MAX_USES_A_TURN:
                        stop_reason = "pause_turn"
                        break
                    parts.append(self._result(name, use_id, at))
        if not parts:
            return following
        if stop_reason is None:
            parts.extend([*self._uploads, *self._cited(following.parts)])
        return replace(
            following,
            parts=tuple(parts),
            stop_reason=stop_reason or following.stop_reason,
            server_tool_use={f"{name}_requests": count for name, count in self._counted.items()},
            container=self._used_container(),
        )

    @property
    def _uses(self) -> int:
        found = _USES.search(self._text)
        return int(found[1]) if found else 1

    def _use(self, name: str, use_id: str) -> Part:
        kind = str(self._tools[name]["type"])
        frame: dict[str, object] = {"type": "server_tool_use", "id": use_id, "name": name}
        given: dict[str, object]
        if kind == "mcp_toolset":
            given = {"question": excerpt(self._text)}
            frame |= {"type": "mcp_tool_use", "name": "ask", "server_name": name}
        elif kind.startswith(("web_search", "tool_search")):
            given = {"query": excerpt(self._text)}
        elif kind.startswith("web_fetch"):
            given = {"url": "https://example.com/simulated"}
        elif kind.startswith("advisor"):
            given = {}
        elif kind == _OLD_CODE_EXECUTION:
            given = {"code": "print('simulated')"}
        elif _EDIT in self._text:
            given = {"command": "create", "path": "simulated.txt", "file_text": "simulated"}
            frame["name"] = "text_editor_code_execution"
        else:
            given = {"command": "echo simulated"}
            frame["name"] = "bash_code_execution"
        if frame["type"] == "server_tool_use":
            frame["caller"] = {"type": "direct"}
        return Part(frame=frame, goes_to="input", pieces=tuple(split_output(compact_json(given))))

    def _result(self, name: str, use_id: str, at: int) -> Part:
        kind = str(self._tools.get(name, {}).get("type") or name)
        if kind.startswith("web_search"):
            block_type, content = "web_search_tool_result", self._search(name, at)
        elif kind.startswith("web_fetch"):
            block_type, content = "web_fetch_tool_result", self._fetch(name, at)
        elif kind.startswith("tool_search"):
            block_type, content = "tool_search_tool_result", self._tool_search()
        elif kind.startswith("advisor"):
            return self._advice(name, use_id)
        elif kind == "mcp_toolset":
            block_type = "mcp_tool_result"
            content = [{"type": "text", "text": "A simulated result."}]
        elif kind == _OLD_CODE_EXECUTION:
            block_type, content = "code_execution_tool_result", self._code("code_execution")
        elif _EDIT in self._text:
            block_type, content = "text_editor_code_execution_tool_result", self._edit()
        else:
            block_type = "bash_code_execution_tool_result"
            content = self._code("bash_code_execution")
        frame: dict[str, object] = {
            "type": block_type,
            "tool_use_id": use_id,
            "content": content,
        }
        if kind.startswith("web_"):
            frame["caller"] = {"type": "direct"}
        if kind == "mcp_toolset":
            frame["is_error"] = False
        # By size alone: its ids differ each time, and the same use should cost the same.
        return complete(frame, read_tokens=1 + len(compact_json(content)) // _LETTERS_A_TOKEN)

    def _failure(self, name: str, at: int) -> str | None:
        most = self._tools.get(name, {}).get("max_uses")
        if isinstance(most, int) and at >= most:
            return "max_uses_exceeded"
        return "unavailable" if "[[tool-error]]" in self._text else None

    def _search(self, name: str, at: int) -> object:
        code = self._failure(name, at)
        if code is not None:
            return {"type": "web_search_tool_result_error", "error_code": code}
        self._counted["web_search"] += 1
        return [
            {
                "type": "web_search_result",
                "title": f"Simulated page {at + 1}.{number}",
                "url": f"https://example.com/simulated/{at + 1}/{number}",
                "encrypted_content": opaque(f"{self._loop.identity}:page:{at}:{number}", 300),
                "page_age": None if number == 1 else "1 day ago",
            }
            for number in (1, 2)
        ]

    def _fetch(self, name: str, at: int) -> object:
        code = self._failure(name, at)
        if code is not None:
            return {"type": "web_fetch_tool_result_error", "error_code": code}
        self._counted["web_fetch"] += 1
        text = {"type": "text", "media_type": "text/plain", "data": "A simulated page."}
        return {
            "type": "web_fetch_result",
            "url": "https://example.com/simulated",
            "retrieved_at": self._loop.now.isoformat(),
            "content": {"type": "document", "source": text, "title": "Simulated page"},
        }

    def _tool_search(self) -> object:
        references = [{"type": "tool_reference", "tool_name": name} for name in self._deferred]
        return {"type": "tool_search_tool_search_result", "tool_references": references}

    def _code(self, kind: str) -> object:
        self._ran_code = True
        if "[[tool-error]]" in self._text:
            return {"type": f"{kind}_tool_result_error", "error_code": "unavailable"}
        made: list[dict[str, object]] = []
        if "[[make-file]]" in self._text:
            file_id = self._loop.make_file("simulated.txt", b"simulated\n")
            made.append({"type": f"{kind}_output", "file_id": file_id})
            self._uploads.append(complete({"type": "container_upload", "file_id": file_id}))
        return {
            "type": f"{kind}_result",
            "stdout": "simulated\n",
            "stderr": "",
            "return_code": 0,
            "content": made,
        }

    def _edit(self) -> object:
        self._ran_code = True
        kind = "text_editor_code_execution"
        if "[[tool-error]]" in self._text:
            return {
                "type": f"{kind}_tool_result_error",
                "error_code": "unavailable",
                "error_message": "Simulated failure.",
            }
        return {"type": f"{kind}_create_result", "is_file_update": False}

    def _advice(self, name: str, use_id: str) -> Part:
        text = "Simulated advice: go on."
        content = {"type": "advisor_result", "text": text, "stop_reason": "end_turn"}
        frame = {"type": "advisor_tool_result", "tool_use_id": use_id, "content": content}
        asked = self._loop.rule.text(self._text)
        run = Run(
            kind="advisor_message",
            model=str(self._tools.get(name, {}).get("model") or self._model),
            counts=InputCounts(plain=asked + 1_000),
            output_tokens=len(split_output(text)),
        )
        return complete(frame, read_tokens=len(split_output(text)), advice=run)

    def _cited(self, parts: Sequence[Part]) -> Iterator[Part]:
        """The first text cites a page that was found."""
        for part in parts:
            if part.goes_to == "text" and self._counted["web_search"] and not part.citations:
                citation = {
                    "type": "web_search_result_location",
                    "cited_text": "A simulated sentence of the page.",
                    "url": "https://example.com/simulated/1/1",
                    "title": "Simulated page 1.1",
                    "encrypted_index": opaque(f"{self._loop.identity}:index", 120),
                }
                yield replace(part, citations=(citation,))
            else:
                yield part

    def _used_container(self) -> Json | None:
        if not self._ran_code:
            return None
        given = self._container
        known = given.get("id") if isinstance(given, dict) else given
        return {
            "id": known or f"container_011{opaque(self._loop.identity, 22)}",
            "expires_at": (self._loop.now + _CONTAINER_LIFE).isoformat(),
        }
