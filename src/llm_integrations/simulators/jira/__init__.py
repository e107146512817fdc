"""A Jira site on a loopback port, written from the API facts alone.

`JiraSimulator` is the door. Reading order: `simulator` (what it offers), `server` (one request),
`state` (the rules of the site), `fields` (what a field takes), `render` and `events` (what is
shown), `webhooks` (what is sent). Nothing of the package outside `simulators` is imported, so a
wrong field name in the client cannot agree with itself here.
"""

from __future__ import annotations

from .limits import Limits, UserBucket
from .records import Comment, Issue, RecordedRequest, User, Write
from .refusal import Refused
from .simulator import JiraSimulator
from .webhooks import Delivery, Webhook, WebhookFaults, sign

__all__ = [
    "Comment",
    "Delivery",
    "Issue",
    "JiraSimulator",
    "Limits",
    "RecordedRequest",
    "Refused",
    "User",
    "UserBucket",
    "Webhook",
    "WebhookFaults",
    "Write",
    "sign",
]
