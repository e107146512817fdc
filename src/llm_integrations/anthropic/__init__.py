"""The Claude client: typed, async, exact about money.

`AnthropicClient` sends; everything else here is a value or a pure function. Every public name is
in `__all__`; the modules behind them are not public. What only some programs need is imported when
it is first used, so that the others start at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from llm_integrations._core.http import AiohttpTransport, Httpx2Transport, Transport
from llm_integrations.anthropic.blocks import (
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    ImageSource,
    RedactedThinkingBlock,
    SearchResultBlock,
    ServerToolUseBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UnknownBlock,
    cached,
)
from llm_integrations.anthropic.catalogue import ClaudeModel, ModelInfo
from llm_integrations.anthropic.client import AnthropicClient
from llm_integrations.anthropic.config import AnthropicConfig
from llm_integrations.anthropic.costs import CostLine, CostStats, CostTracker
from llm_integrations.anthropic.definitions import ToolDefinition
from llm_integrations.anthropic.events import (
    CitationsDelta,
    CompactionDelta,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    ErrorEvent,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    UnknownDelta,
    UnknownEvent,
    parse_events,
)
from llm_integrations.anthropic.limits import LimitState, RateLimitInfo
from llm_integrations.anthropic.live import MessageStream
from llm_integrations.anthropic.models import (
    Message,
    MessageContent,
    MessageRequest,
    MessageResponse,
    Role,
    StopReason,
    Usage,
    json_schema_format,
    parse_message,
)
from llm_integrations.anthropic.pricing import (
    Price,
    price,
    price_details,
    price_message,
    price_message_details,
)
from llm_integrations.anthropic.stream import StreamCollector, StreamHandler

if TYPE_CHECKING:
    from llm_integrations.anthropic.structured import output_format, parse_output
    from llm_integrations.anthropic.tool_loop import ToolCall, ToolRun, ToolTurn
    from llm_integrations.anthropic.tools import Tool, tool

if TYPE_CHECKING:
    from llm_integrations.anthropic.batches.endpoint import Batches
    from llm_integrations.anthropic.batches.values import (
        Batch,
        BatchRequest,
        BatchResult,
        CanceledResult,
        ErroredResult,
        ExpiredResult,
        RequestCounts,
        SucceededResult,
        UnknownResult,
        UnreadableResult,
    )
    from llm_integrations.anthropic.files import FileInfo, Files
    from llm_integrations.anthropic.governed import govern
    from llm_integrations.anthropic.tokens.counter import (
        CostEstimate,
        TokenBudget,
        TokenCounter,
        TokenEstimate,
    )

__all__ = [
    "AiohttpTransport",
    "AnthropicClient",
    "AnthropicConfig",
    "Batch",
    "BatchRequest",
    "BatchResult",
    "Batches",
    "CanceledResult",
    "CitationsDelta",
    "ClaudeModel",
    "CompactionDelta",
    "ContentBlock",
    "ContentBlockDelta",
    "ContentBlockStart",
    "ContentBlockStop",
    "CostEstimate",
    "CostLine",
    "CostStats",
    "CostTracker",
    "DocumentBlock",
    "ErrorEvent",
    "ErroredResult",
    "ExpiredResult",
    "FileInfo",
    "Files",
    "Httpx2Transport",
    "ImageBlock",
    "ImageSource",
    "InputJsonDelta",
    "LimitState",
    "Message",
    "MessageContent",
    "MessageDelta",
    "MessageRequest",
    "MessageResponse",
    "MessageStart",
    "MessageStop",
    "MessageStream",
    "ModelInfo",
    "Ping",
    "Price",
    "RateLimitInfo",
    "RedactedThinkingBlock",
    "RequestCounts",
    "Role",
    "SearchResultBlock",
    "ServerToolUseBlock",
    "SignatureDelta",
    "StopReason",
    "StreamCollector",
    "StreamEvent",
    "StreamHandler",
    "SucceededResult",
    "TextBlock",
    "TextDelta",
    "ThinkingBlock",
    "ThinkingDelta",
    "TokenBudget",
    "TokenCounter",
    "TokenEstimate",
    "Tool",
    "ToolCall",
    "ToolDefinition",
    "ToolResultBlock",
    "ToolRun",
    "ToolTurn",
    "ToolUseBlock",
    "Transport",
    "UnknownBlock",
    "UnknownDelta",
    "UnknownEvent",
    "UnknownResult",
    "UnreadableResult",
    "Usage",
    "cached",
    "govern",
    "json_schema_format",
    "output_format",
    "parse_events",
    "parse_message",
    "parse_output",
    "price",
    "price_details",
    "price_message",
    "price_message_details",
    "tool",
]

# Names that few need: their modules are imported when they are asked for, not with this one.
_LAZY: Final = {
    "Batch": "batches.values",
    "BatchRequest": "batches.values",
    "BatchResult": "batches.values",
    "Batches": "batches.endpoint",
    "CanceledResult": "batches.values",
    "CostEstimate": "tokens.counter",
    "ErroredResult": "batches.values",
    "ExpiredResult": "batches.values",
    "FileInfo": "files",
    "Files": "files",
    "RequestCounts": "batches.values",
    "SucceededResult": "batches.values",
    "TokenBudget": "tokens.counter",
    "TokenCounter": "tokens.counter",
    "TokenEstimate": "tokens.counter",
    "Tool": "tools",
    "ToolCall": "tool_loop",
    "ToolRun": "tool_loop",
    "ToolTurn": "tool_loop",
    "UnknownResult": "batches.values",
    "UnreadableResult": "batches.values",
    "govern": "governed",
    "output_format": "structured",
    "parse_output": "structured",
    "tool": "tools",
}


def __getattr__(name: str) -> object:
    """Import a name that few need from the module that defines it."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
