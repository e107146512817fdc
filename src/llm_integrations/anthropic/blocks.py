"""Content blocks: what messages are made of, in both directions.

In: the JSON of one block, or of a list. Out: one member of `ContentBlock`. A block of a kind that
is not listed here, or of a listed kind in a shape not seen before, becomes an `UnknownBlock` with
its JSON: nothing is lost and nothing raises. No I/O; the next room is `models`.

Field names are the wire's: https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias, TypeVar, overload

import msgspec

from llm_integrations._core.codec import Raw, Undecodable, decode, encode
from llm_integrations.anthropic.media import (
    checked_image_type,
    checked_pdf,
    media_type_of,
)
from llm_integrations.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "AdvisorToolResultBlock",
    "BashCodeExecutionToolResultBlock",
    "CodeExecutionToolResultBlock",
    "CompactionBlock",
    "ContainerUploadBlock",
    "ContentBlock",
    "DocumentBlock",
    "FallbackBlock",
    "ImageBlock",
    "ImageSource",
    "McpToolListingBlock",
    "McpToolResultBlock",
    "McpToolUseBlock",
    "RedactedThinkingBlock",
    "SearchResultBlock",
    "ServerToolUseBlock",
    "TextBlock",
    "TextEditorCodeExecutionToolResultBlock",
    "ThinkingBlock",
    "ToolAdditionBlock",
    "ToolReferenceBlock",
    "ToolRemovalBlock",
    "ToolResultBlock",
    "ToolSearchToolResultBlock",
    "ToolUseBlock",
    "UnknownBlock",
    "WebFetchToolResultBlock",
    "WebSearchToolResultBlock",
    "cached",
    "decode_block",
    "decode_blocks",
    "in_wire_form",
]

Json: TypeAlias = Any  # the JSON border: whatever the model or a tool put there


class _Block(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """What all blocks share: on the wire `type` tells them apart."""

    type: ClassVar[str]


class TextBlock(_Block, frozen=True, kw_only=True, tag="text"):
    """Text; `citations` say where it comes from, when they were asked for."""

    type: ClassVar[str] = "text"
    text: str
    citations: Json = None
    cache_control: Mapping[str, str] | None = None


class ThinkingBlock(_Block, frozen=True, kw_only=True, tag="thinking"):
    """The model's reasoning, empty when its display is omitted. Goes back unchanged."""

    type: ClassVar[str] = "thinking"
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(_Block, frozen=True, kw_only=True, tag="redacted_thinking"):
    """Reasoning that only the server can read. Goes back unchanged."""

    type: ClassVar[str] = "redacted_thinking"
    data: str


class ToolUseBlock(_Block, frozen=True, kw_only=True, tag="tool_use"):
    """The model asks for one of the caller's tools.

    `input` is empty when the model was cut off inside it: see
    `MessageResponse.unparsed_tool_inputs`.
    """

    type: ClassVar[str] = "tool_use"
    id: str
    name: str
    input: dict[str, Json]
    caller: Json = None
    toolset_name: str | None = None
    cache_control: Mapping[str, str] | None = None

    def result(self, content: Json = None, *, is_error: bool = False) -> ToolResultBlock:
        """Return the block that answers this call.

        Args:
            content: text, a block or a list of blocks; anything else is sent as its JSON. None
                sends nothing.
            is_error: tell the model that the tool failed, with `content` as the reason.
        """
        return ToolResultBlock(
            tool_use_id=self.id,
            content=_result_content(content),
            is_error=is_error,
            toolset_name=self.toolset_name,
        )


class ServerToolUseBlock(_Block, frozen=True, kw_only=True, tag="server_tool_use"):
    """The model used a tool that runs at the server."""

    type: ClassVar[str] = "server_tool_use"
    id: str
    name: str
    input: dict[str, Json]
    caller: Json = None
    cache_control: Mapping[str, str] | None = None


class McpToolUseBlock(_Block, frozen=True, kw_only=True, tag="mcp_tool_use"):
    """The model used a tool of an MCP server."""

    type: ClassVar[str] = "mcp_tool_use"
    id: str
    name: str
    input: dict[str, Json]
    server_name: str = ""


class ToolResultBlock(_Block, frozen=True, kw_only=True, tag="tool_result"):
    """The answer of one of the caller's tools; first in the turn that follows its `tool_use`."""

    type: ClassVar[str] = "tool_result"
    tool_use_id: str
    content: Json = None
    is_error: bool | None = False
    toolset_name: str | None = None
    cache_control: Mapping[str, str] | None = None


class _ServerToolResult(_Block, frozen=True, kw_only=True):
    """What a tool at the server answered; `content` is an object or a list of them."""

    tool_use_id: str
    content: Json = None
    is_error: bool | None = False
    caller: Json = None
    cache_control: Mapping[str, str] | None = None


class WebSearchToolResultBlock(
    _ServerToolResult, frozen=True, kw_only=True, tag="web_search_tool_result"
):
    """What a web search found."""

    type: ClassVar[str] = "web_search_tool_result"


class WebFetchToolResultBlock(
    _ServerToolResult, frozen=True, kw_only=True, tag="web_fetch_tool_result"
):
    """A page that was fetched."""

    type: ClassVar[str] = "web_fetch_tool_result"


class CodeExecutionToolResultBlock(
    _ServerToolResult, frozen=True, kw_only=True, tag="code_execution_tool_result"
):
    """What a program printed."""

    type: ClassVar[str] = "code_execution_tool_result"


class BashCodeExecutionToolResultBlock(
    _ServerToolResult, frozen=True, kw_only=True, tag="bash_code_execution_tool_result"
):
    """What a shell command printed."""

    type: ClassVar[str] = "bash_code_execution_tool_result"


class TextEditorCodeExecutionToolResultBlock(
    _ServerToolResult, frozen=True, kw_only=True, tag="text_editor_code_execution_tool_result"
):
    """What the server's text editor did."""

    type: ClassVar[str] = "text_editor_code_execution_tool_result"


class ToolSearchToolResultBlock(
    _ServerToolResult, frozen=True, kw_only=True, tag="tool_search_tool_result"
):
    """Tools that a search among deferred ones found."""

    type: ClassVar[str] = "tool_search_tool_result"


class AdvisorToolResultBlock(
    _ServerToolResult, frozen=True, kw_only=True, tag="advisor_tool_result"
):
    """What the advisor model said."""

    type: ClassVar[str] = "advisor_tool_result"


class McpToolResultBlock(_ServerToolResult, frozen=True, kw_only=True, tag="mcp_tool_result"):
    """What a tool of an MCP server answered."""

    type: ClassVar[str] = "mcp_tool_result"


class McpToolListingBlock(_Block, frozen=True, kw_only=True, tag="mcp_tool_listing"):
    """The tools that an MCP server offers."""

    type: ClassVar[str] = "mcp_tool_listing"
    server_name: str = ""
    tools: Json = None


class CompactionBlock(_Block, frozen=True, kw_only=True, tag="compaction"):
    """A summary that stands for everything before it. Goes back unchanged."""

    type: ClassVar[str] = "compaction"
    content: str | None = None
    encrypted_content: str | None = None
    signature: str | None = None
    tool_changes: Json = None


class FallbackBlock(_Block, frozen=True, kw_only=True, tag="fallback"):
    """From here on another model answers."""

    type: ClassVar[str] = "fallback"
    from_: Json = msgspec.field(default=None, name="from")
    to: Json = None
    trigger: Json = None


class ContainerUploadBlock(_Block, frozen=True, kw_only=True, tag="container_upload"):
    """A file for, or from, the code execution container."""

    type: ClassVar[str] = "container_upload"
    file_id: str
    cache_control: Mapping[str, str] | None = None


class ToolReferenceBlock(_Block, frozen=True, kw_only=True, tag="tool_reference"):
    """Names a deferred tool inside a tool result."""

    type: ClassVar[str] = "tool_reference"
    tool_name: str


class ToolAdditionBlock(_Block, frozen=True, kw_only=True, tag="tool_addition"):
    """From here on the model has one more tool, named by a reference."""

    type: ClassVar[str] = "tool_addition"
    tool: Json


class ToolRemovalBlock(_Block, frozen=True, kw_only=True, tag="tool_removal"):
    """From here on the model has one tool less."""

    type: ClassVar[str] = "tool_removal"
    tool: Json


class ImageSource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an image or a document comes from: bytes, a URL or an uploaded file."""

    type: str
    media_type: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""

    @classmethod
    def from_bytes(cls, data: bytes, media_type: str | None = None) -> ImageSource:
        """Send `data` inside the request; without a media type it must be an image.

        Raises:
            InvalidRequest: there is no media type, and it is no image or too large.
        """
        media_type = media_type or checked_image_type(data)
        return cls(type="base64", media_type=media_type, data=base64.b64encode(data).decode())

    @classmethod
    def from_url(cls, url: str) -> ImageSource:
        """Let the server fetch it."""
        return cls(type="url", url=url)

    @classmethod
    def from_file_id(cls, file_id: str) -> ImageSource:
        """Name a file uploaded before."""
        return cls(type="file", file_id=file_id)


class ImageBlock(_Block, frozen=True, kw_only=True, tag="image"):
    """An image: JPEG, PNG, GIF or WebP, at most 10 MB in base64 and 8,000 pixels an edge."""

    type: ClassVar[str] = "image"
    source: ImageSource
    transformations: Mapping[str, str] | None = None
    cache_control: Mapping[str, str] | None = None

    @classmethod
    def from_bytes(cls, data: bytes) -> ImageBlock:
        """Send an image inside the request; its first bytes say what kind it is.

        Raises:
            InvalidRequest: it is no image that the API takes, or too large.
        """
        return cls(source=ImageSource.from_bytes(data))

    @classmethod
    def from_path(cls, path: Path | str) -> ImageBlock:
        """Send an image file; see `from_bytes`. Reads it at once and blocks while it does.

        In a busy program: `await asyncio.to_thread(ImageBlock.from_path, path)`.
        """
        return cls.from_bytes(_file(path).read_bytes())

    @classmethod
    def from_url(cls, url: str) -> ImageBlock:
        """Let the server fetch the image."""
        return cls(source=ImageSource.from_url(url))

    @classmethod
    def from_file(cls, file_id: str) -> ImageBlock:
        """Name an image uploaded to the Files API."""
        return cls(source=ImageSource.from_file_id(file_id))


class DocumentBlock(_Block, frozen=True, kw_only=True, tag="document"):
    """A PDF or a text; `source` as for images, or the wire form of a text or content source.

    Where the model shall cite it: `DocumentBlock.from_path(path, citations={"enabled": True})`.
    """

    type: ClassVar[str] = "document"
    source: Json
    title: str | None = None
    context: str | None = None
    citations: Mapping[str, bool] | None = None
    cache_control: Mapping[str, str] | None = None

    @classmethod
    def from_bytes(cls, data: bytes, **more: Json) -> DocumentBlock:
        """Send a PDF, or a text in UTF-8, inside the request.

        Args:
            data: what the file holds.
            **more: `title`, `context`, `citations`, `cache_control`.

        Raises:
            InvalidRequest: it is neither, or too large.
        """
        if media_type_of(data) is None:
            try:
                return cls.from_text(data.decode("utf-8-sig"), **more)
            except UnicodeDecodeError:
                pass  # `checked_pdf` says what is wrong
        source = ImageSource.from_bytes(checked_pdf(data), "application/pdf")
        return cls(source=source, **more)

    @classmethod
    def from_path(cls, path: Path | str, **more: Json) -> DocumentBlock:
        """Send a PDF or text file, titled by its name; see `from_bytes`. Blocks while it reads.

        In a busy program: `await asyncio.to_thread(DocumentBlock.from_path, path)`.
        """
        file = _file(path)
        return cls.from_bytes(file.read_bytes(), **{"title": file.name, **more})

    @classmethod
    def from_text(cls, text: str, **more: Json) -> DocumentBlock:
        """Send plain text as a document, which the model can cite."""
        return cls(source={"type": "text", "media_type": "text/plain", "data": text}, **more)

    @classmethod
    def from_url(cls, url: str, **more: Json) -> DocumentBlock:
        """Let the server fetch a PDF."""
        return cls(source=ImageSource.from_url(url), **more)

    @classmethod
    def from_file(cls, file_id: str, **more: Json) -> DocumentBlock:
        """Name a document uploaded to the Files API."""
        return cls(source=ImageSource.from_file_id(file_id), **more)


class SearchResultBlock(_Block, frozen=True, kw_only=True, tag="search_result"):
    """A search result of the caller's own, which the model can cite."""

    type: ClassVar[str] = "search_result"
    source: str
    title: str
    content: Sequence[TextBlock]
    citations: Mapping[str, bool] | None = None
    cache_control: Mapping[str, str] | None = None


class UnknownBlock(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="~unknown"):
    """A block of a kind, or in a shape, that this version does not know.

    Attributes:
        raw: its JSON, as it came.
    """

    type: str = msgspec.field(name="~type")
    raw: bytes = msgspec.field(name="~raw")

    def to_dict(self) -> dict[str, Json]:
        """Return the block as plain data."""
        return decode(_dict_decoder, self.raw)


ContentBlock: TypeAlias = (
    TextBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ServerToolUseBlock
    | McpToolUseBlock
    | ToolResultBlock
    | WebSearchToolResultBlock
    | WebFetchToolResultBlock
    | CodeExecutionToolResultBlock
    | BashCodeExecutionToolResultBlock
    | TextEditorCodeExecutionToolResultBlock
    | ToolSearchToolResultBlock
    | AdvisorToolResultBlock
    | McpToolResultBlock
    | McpToolListingBlock
    | CompactionBlock
    | FallbackBlock
    | ContainerUploadBlock
    | ToolReferenceBlock
    | ToolAdditionBlock
    | ToolRemovalBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | UnknownBlock
)


class _Typed(msgspec.Struct):
    type: Json = ""


_block_decoder: Final[msgspec.json.Decoder[ContentBlock]] = msgspec.json.Decoder(ContentBlock)
_typed_decoder: Final = msgspec.json.Decoder(_Typed)
_dict_decoder: Final = msgspec.json.Decoder(dict[str, Any])


def decode_block(data: bytes) -> ContentBlock:
    """Decode one block, whatever it is.

    Raises:
        Undecodable: the bytes are no JSON object.
    """
    try:
        return decode(_block_decoder, data)
    except Undecodable:
        kind = decode(_typed_decoder, data).type
        return UnknownBlock(type=kind if isinstance(kind, str) else "", raw=bytes(data))


def decode_blocks(blocks: Sequence[Raw]) -> list[ContentBlock]:
    """Decode each of `blocks`; see `decode_block`."""
    return [decode_block(bytes(block)) for block in blocks]


CacheableBlock = TypeVar(
    "CacheableBlock",
    TextBlock,
    ImageBlock,
    DocumentBlock,
    SearchResultBlock,
    ToolUseBlock,
    ToolResultBlock,
    ContainerUploadBlock,
)


@overload
def cached(block: str, *, ttl: Literal["5m", "1h"] = "5m") -> TextBlock: ...
@overload
def cached(block: CacheableBlock, *, ttl: Literal["5m", "1h"] = "5m") -> CacheableBlock: ...
def cached(
    block: str | CacheableBlock, *, ttl: Literal["5m", "1h"] = "5m"
) -> TextBlock | CacheableBlock:
    """Return a block that ends a cached prefix: the prompt up to here is kept for `ttl`.

    A request has at most four of them. https://platform.claude.com/docs/en/build-with-claude/prompt-caching

    >>> cached("You sort issues.").cache_control
    {'type': 'ephemeral'}
    """
    control = {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}
    if isinstance(block, str):
        return TextBlock(text=block, cache_control=control)
    return msgspec.structs.replace(block, cache_control=control)


def in_wire_form(content: Json) -> Json:
    """Return the content of a message with texts as blocks: what `Message.user` is given."""
    if isinstance(content, (str, Raw)):
        return content
    if isinstance(content, (list, tuple)):
        return [TextBlock(text=part) if isinstance(part, str) else part for part in content]
    return [content]


def _file(path: Path | str) -> Path:
    from pathlib import Path  # noqa: PLC0415 - 3 ms of the import, and few read files

    return Path(path)


def _result_content(content: Json) -> Json:
    """Return what a tool answered as the content of a `tool_result`."""
    if content is None or isinstance(content, str):
        return content
    if _is_block(content):
        return [content]
    if isinstance(content, (list, tuple)) and content and all(map(_is_block, content)):
        return list(content)
    try:
        return encode(content).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        msg = f"tool_result: a {type(content).__name__} cannot be sent as JSON"
        raise InvalidRequest(msg) from error


def _is_block(value: object) -> bool:
    return isinstance(value, (_Block, UnknownBlock))
