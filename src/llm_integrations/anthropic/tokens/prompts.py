"""What a prompt is made of, as far as its parts are counted differently.

In: the JSON of a request as a dict, whatever is in it. Out: a `Prompt`: texts to be measured,
named parts to be counted, tokens of media, and what can only be guessed.

Facts (measured on recorded requests, `scripts/fit_tokens.py`):
1. Tool definitions are in the prompt as JSON with a space behind each colon and comma. A deferred
   one is not there before a `tool_reference` names it.
2. A tool call is there as its name and, one by one, its parameters: strings as they are, not as
   JSON. A result is there as its text.
3. Thinking of earlier turns is not counted; that of the turn still going on (only tool results
   came since) is.
4. `cache_control`, citations settings, signatures and ids cost nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from llm_integrations._core.codec import encode
from llm_integrations.anthropic.tokens.media import image_tokens, pdf_pages, size_in_base64

__all__ = ["Guess", "Prompt", "read_prompt"]

Json: TypeAlias = Any  # the JSON border

# A page is an image and its text: 1,576 tokens when almost empty, 2,666 when dense, more where
# citations are on; so that the upper end is what the documentation says to reserve.
PDF_PAGE: Final = (1_875, 1_125)
CITED_PDF_PAGE: Final = (3_000, 1_500)
PAGES_OF_AN_UNSEEN_PDF: Final = 5
TOKENS_PER_ENCRYPTED_CHARACTER: Final = 0.5
MCP_SERVER: Final = (2_700, 2_700)  # its tools are not in the request
UNSEEN_FILE: Final = (2_000, 2_000)
_VERSION: Final = re.compile(r"_\d{8}$")


class Guess(msgspec.Struct):
    """Tokens that may be `spread` more or fewer."""

    tokens: float = 0.0
    spread: float = 0.0

    def add(self, tokens: float, spread: float) -> None:
        """Add another one to it."""
        self.tokens += tokens
        self.spread += spread


class Prompt(msgspec.Struct):
    """The parts of a prompt.

    Attributes:
        texts: what the model reads as text.
        tool_texts: definitions of the caller's tools.
        schema_texts: the schema of a structured output.
        parts: how many there are of what costs a fixed number of tokens each, by name.
        image_tokens: of images of known size.
        guess: media of unknown size, and other things that are not in the request.
        server_tools: names, without version, of tools that Anthropic defines.
    """

    texts: list[str] = []
    tool_texts: list[str] = []
    schema_texts: list[str] = []
    parts: Counter[str] = msgspec.field(default_factory=Counter)
    image_tokens: int = 0
    guess: Guess = msgspec.field(default_factory=Guess)
    server_tools: list[str] = []


def read_prompt(fields: Mapping[str, Json], *, most_image_tokens: int) -> Prompt:
    """Sort a request into its parts.

    Args:
        fields: the request.
        most_image_tokens: what one image can cost at most on its model.
    """
    reader = _Reader(most_image_tokens)
    prompt = reader.prompt
    messages = _list_of_dicts(fields.get("messages"))
    prompt.parts["request"] = 1
    prompt.parts["message"] = max(len(messages) - 1, 0)
    reader.read(fields.get("system"))
    running = _start_of_running_turn(messages)
    for number, message in enumerate(messages):
        reader.thinking_counts = number >= running
        reader.read(message.get("content"))
    reader.read_tools(_list_of_dicts(fields.get("tools")))
    reader.read_settings(fields)
    return prompt


class _Reader:
    """Collects the parts of one prompt."""

    def __init__(self, most_image_tokens: int) -> None:
        self.prompt = Prompt()
        self.thinking_counts = False
        self._most_image_tokens = most_image_tokens
        self._referenced: set[str] = set()

    def read(self, content: Json) -> None:
        """Take a string, a block or a list of them, however nested."""
        waiting = [content]
        while waiting:
            part = waiting.pop()
            if isinstance(part, str):
                self.prompt.texts.append(part)
            elif isinstance(part, list):
                waiting += part
            elif isinstance(part, dict):
                waiting += self._block(part)

    def read_tools(self, tools: list[dict[str, Json]]) -> None:
        """Take the tools that the prompt has."""
        for tool in tools:
            if tool.get("type") not in (None, "custom"):
                self.prompt.server_tools.append(_VERSION.sub("", str(tool["type"])))
            elif not tool.get("defer_loading") or str(tool.get("name")) in self._referenced:
                shown = ("name", "description", "input_schema")
                self.prompt.tool_texts.append(_spaced({k: tool[k] for k in shown if k in tool}))
            if tool.get("allowed_callers") not in (None, [], ["direct"]):
                self.prompt.server_tools.append("code_execution")

    def read_settings(self, fields: Mapping[str, Json]) -> None:
        """Take what settings of the request add."""
        config = _dict(fields.get("output_config"))
        form = _dict(config.get("format") or fields.get("output_format"))
        if form.get("schema") is not None:
            self.prompt.parts["schema"] = 1
            self.prompt.schema_texts.append(_spaced(form["schema"]))
        self.prompt.parts["task_budget"] = config.get("task_budget") is not None
        self.prompt.parts["thinking"] = _dict(fields.get("thinking")).get("type") == "enabled"
        for _server in _list_of_dicts(fields.get("mcp_servers")):
            self.prompt.guess.add(*MCP_SERVER)

    def _block(self, block: dict[str, Json]) -> list[Json]:
        """Count one block and return the parts inside it."""
        parts = self.prompt.parts
        match block.get("type"):
            case "text":
                return [block.get("text")]
            case "image":
                self._image(block.get("source"))
            case "document":
                return self._document(block)
            case "tool_use":
                parts["tool_use"] += 1
                return [*self._call(block)]
            case "tool_result":
                parts["tool_result"] += 1
                return [block.get("content")]
            case "thinking":
                return [block.get("thinking")] if self.thinking_counts else []
            case "redacted_thinking":
                pass
            case "tool_reference":
                self._referenced.add(str(block.get("tool_name")))
            case "search_result":
                return [block.get("source"), block.get("title"), block.get("content")]
            case "compaction":
                return [block.get("content")]
            case "container_upload":
                self.prompt.guess.add(*UNSEEN_FILE)
            case _:
                return self._other(block)
        return []

    def _call(self, block: dict[str, Json]) -> Iterator[str]:
        """Yield the texts of a tool call."""
        yield str(block.get("name") or "")
        for key, value in _dict(block.get("input")).items():
            self.prompt.parts["parameter"] += 1
            yield key
            yield value if isinstance(value, str) else _spaced(value)

    def _image(self, source: Json) -> None:
        """Count an image by its size, or by half of the most that it can cost."""
        data = _dict(source).get("data")
        size = size_in_base64(data) if isinstance(data, str) else None
        if size is None:
            half = self._most_image_tokens / 2
            self.prompt.guess.add(half, half)
            return
        self.prompt.parts["image"] += 1
        self.prompt.image_tokens += image_tokens(*size, most=self._most_image_tokens)

    def _document(self, block: dict[str, Json]) -> list[Json]:
        """Count a document; return its texts, where it is made of such."""
        source = _dict(block.get("source"))
        about = [block.get("title"), block.get("context")]
        match source.get("type"):
            case "text" | "content":
                self.prompt.parts["document"] += 1
                return [source.get("data"), source.get("content"), *about]
            case "base64" if isinstance(source.get("data"), str):
                pages, known = pdf_pages(source["data"]), True
            case _:
                pages, known = PAGES_OF_AN_UNSEEN_PDF, False
        cited = _dict(block.get("citations")).get("enabled")
        tokens, spread = CITED_PDF_PAGE if cited else PDF_PAGE
        self.prompt.guess.add(pages * tokens, pages * (spread if known else tokens))
        return about

    def _other(self, block: dict[str, Json]) -> list[Json]:
        """Return the texts of a block of the server's tools, or of a kind that is not known.

        What is encrypted in it, such as a page that was found, is read by the model in full.
        """
        waiting: list[Json] = [block]
        texts: list[Json] = []
        while waiting:
            part = waiting.pop()
            if isinstance(part, list):
                waiting += part
            elif isinstance(part, dict) and str(part.get("type")) in _READ_AS_THEY_ARE:
                texts.append(part)
            elif isinstance(part, dict):
                hidden = part.get("encrypted_content")
                if isinstance(hidden, str):
                    tokens = len(hidden) * TOKENS_PER_ENCRYPTED_CHARACTER
                    self.prompt.guess.add(tokens, tokens)
                waiting += [value for key, value in part.items() if key not in _COST_NOTHING]
            elif isinstance(part, str):
                texts.append(part)
            elif part is not None:
                texts.append(_spaced(part))
        return texts


_COST_NOTHING: Final = frozenset("type id tool_use_id encrypted_content cache_control".split())
_READ_AS_THEY_ARE: Final = frozenset("text image document tool_reference".split())


def _start_of_running_turn(messages: list[dict[str, Json]]) -> int:
    """Return the number of the first message after the last that a person wrote."""
    for number in range(len(messages) - 1, -1, -1):
        message = messages[number]
        content = message.get("content")
        if message.get("role") == "user" and (
            not isinstance(content, list)
            or any(_dict(block).get("type") != "tool_result" for block in content)
        ):
            return number + 1
    return 0


def _spaced(value: Json) -> str:
    """Return JSON on one line, with a space behind each colon and comma."""
    return msgspec.json.format(encode(value), indent=0).decode()


def _dict(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _list_of_dicts(value: Json) -> list[dict[str, Json]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
