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
    StreamCollector,
    StreamEvent,
    StreamHandler,
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
    "ClaudeModel",
    "ContentBlock",
    "CostEstimate",
    "CostLine",
    "CostStats",
    "CostTracker",
    "DocumentBlock",
    "Httpx2Transport",
    "ImageBlock",
    "ImageSource",
    "LimitState",
    "Message",
    "MessageContent",
    "MessageRequest",
    "MessageResponse",
    "MessageStream",
    "ModelInfo",
    "RateLimitInfo",
    "RedactedThinkingBlock",
    "Role",
    "ServerToolUseBlock",
    "StopReason",
    "StreamCollector",
    "StreamEvent",
    "StreamHandler",
    "TextBlock",
    "ThinkingBlock",
    "TokenBudget",
    "TokenCounter",
    "TokenEstimate",
    "ToolResultBlock",
    "ToolUseBlock",
    "Transport",
    "UnknownBlock",
    "Usage",
    "json_schema_format",
    "parse_events",
    "parse_message",
    "price",
    "price_message",
]
