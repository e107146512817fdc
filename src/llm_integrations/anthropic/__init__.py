"""The Claude client: typed, async, exact about money.

`AnthropicClient` sends; everything else here is a value or a pure function. Every public name is
in `__all__`; the modules behind them are not public.
"""

from llm_integrations._core.http import AiohttpTransport, Httpx2Transport, Transport
from llm_integrations.anthropic.blocks import (
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    ImageSource,
    RedactedThinkingBlock,
    ServerToolUseBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UnknownBlock,
)
from llm_integrations.anthropic.catalogue import ClaudeModel, ModelInfo
from llm_integrations.anthropic.client import AnthropicClient
from llm_integrations.anthropic.config import AnthropicConfig
from llm_integrations.anthropic.costs import CostLine, CostStats, CostTracker
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
from llm_integrations.anthropic.pricing import price, price_message
from llm_integrations.anthropic.stream import (
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
    StreamCollector,
    StreamEvent,
    StreamHandler,
    TextDelta,
    ThinkingDelta,
    UnknownDelta,
    UnknownEvent,
    parse_events,
)
from llm_integrations.anthropic.tokens import (
    CostEstimate,
    TokenBudget,
    TokenCounter,
    TokenEstimate,
)

__all__ = [
    "AiohttpTransport",
    "AnthropicClient",
    "AnthropicConfig",
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
    "RateLimitInfo",
    "RedactedThinkingBlock",
    "Role",
    "ServerToolUseBlock",
    "SignatureDelta",
    "StopReason",
    "StreamCollector",
    "StreamEvent",
    "StreamHandler",
    "TextBlock",
    "TextDelta",
    "ThinkingBlock",
    "ThinkingDelta",
    "TokenBudget",
    "TokenCounter",
    "TokenEstimate",
    "ToolResultBlock",
    "ToolUseBlock",
    "Transport",
    "UnknownBlock",
    "UnknownDelta",
    "UnknownEvent",
    "Usage",
    "json_schema_format",
    "parse_events",
    "parse_message",
    "price",
    "price_message",
]
