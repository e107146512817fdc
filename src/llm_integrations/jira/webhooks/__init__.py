"""Webhook deliveries without I/O: is it Jira's, which one is it, what does it say, who wants it.

`verification` trusts it and names it, `events` reads it with the shapes of `payloads`, `routing`
hands it to handlers. What comes in and out stands at the top of each.
"""

from llm_integrations.jira.webhooks.events import WebhookEvent, is_comment_twin, parse_event
from llm_integrations.jira.webhooks.routing import (
    LoggingWebhookHandler,
    WebhookHandler,
    WebhookProcessor,
    validate_event,
)
from llm_integrations.jira.webhooks.verification import (
    Headers,
    Secret,
    SeenDeliveries,
    delivery_identity,
    verify,
    verify_token,
)

__all__ = [
    "Headers",
    "LoggingWebhookHandler",
    "Secret",
    "SeenDeliveries",
    "WebhookEvent",
    "WebhookHandler",
    "WebhookProcessor",
    "delivery_identity",
    "is_comment_twin",
    "parse_event",
    "validate_event",
    "verify",
    "verify_token",
]
