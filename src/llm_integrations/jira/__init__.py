"""A typed async client for Jira Cloud and Data Center, and the rules of its webhooks.

`JiraClient` calls; `adf` and `jql` write; `verify`, `parse_event` and `WebhookProcessor` receive.
Only these names are public; errors are in `llm_integrations.errors`.
"""

from typing import TYPE_CHECKING

from llm_integrations._core.http import AiohttpTransport, Httpx2Transport, Transport
from llm_integrations.errors import ConfigError
from llm_integrations.jira import adf, jql
from llm_integrations.jira.adf.splitting import split
from llm_integrations.jira.auth import AuthManager, BasicAuth, JiraAuth, PersonalAccessToken
from llm_integrations.jira.auth.grants import FileGrants
from llm_integrations.jira.auth.oauth import Grant, GrantStore, OAuth2, authorize_url
from llm_integrations.jira.calls.agile import BoardColumn, BoardConfiguration
from llm_integrations.jira.calls.attachments import Attachment, AttachmentLimits
from llm_integrations.jira.calls.bulk import BulkCreated, NotCreated
from llm_integrations.jira.calls.changed_worklogs import ChangedWorklog
from llm_integrations.jira.calls.dynamic import DynamicWebhook
from llm_integrations.jira.calls.history import HistoryEntry
from llm_integrations.jira.calls.issues import EditField
from llm_integrations.jira.calls.projects import CreateField
from llm_integrations.jira.calls.sprints import Move
from llm_integrations.jira.client import JiraClient
from llm_integrations.jira.config import JiraConfig
from llm_integrations.jira.issue import Issue, IssueFields, JqlSearchResponse, parse_issue
from llm_integrations.jira.models import (
    Board,
    Comment,
    Component,
    CreateIssueRequest,
    ErrorResponse,
    FieldInfo,
    IssueLink,
    IssueLinkType,
    IssueType,
    JqlSearchRequest,
    Priority,
    Project,
    RemoteLink,
    ServerInfo,
    Sprint,
    Status,
    Transition,
    UpdateIssueRequest,
    User,
    Version,
    WebhookRegistration,
    Worklog,
)
from llm_integrations.jira.pacing.forecasts import Forecast, Pace, forecast
from llm_integrations.jira.poller import PollCursor, Poller
from llm_integrations.jira.updates import IssueUpdate
from llm_integrations.jira.webhooks import (
    LoggingWebhookHandler,
    SeenDeliveries,
    WebhookHandler,
    WebhookProcessor,
    delivery_identity,
    verify,
    verify_token,
)
from llm_integrations.jira.webhooks.events import EVENT_NAMES, WebhookEvent, parse_event
from llm_integrations.jira.webhooks.payloads import (
    Changelog,
    ChangelogItem,
    WebhookAttachment,
    WebhookBoard,
    WebhookComment,
    WebhookIssue,
    WebhookIssueLink,
    WebhookLocation,
    WebhookProject,
    WebhookSprint,
    WebhookThing,
    WebhookUser,
    WebhookVersion,
    WebhookWorklog,
)

if TYPE_CHECKING:
    from llm_integrations.store.grants import PostgresGrants

__all__ = [
    "EVENT_NAMES",
    "AiohttpTransport",
    "Attachment",
    "AttachmentLimits",
    "AuthManager",
    "BasicAuth",
    "Board",
    "BoardColumn",
    "BoardConfiguration",
    "BulkCreated",
    "ChangedWorklog",
    "Changelog",
    "ChangelogItem",
    "Comment",
    "Component",
    "CreateField",
    "CreateIssueRequest",
    "DynamicWebhook",
    "EditField",
    "ErrorResponse",
    "FieldInfo",
    "FileGrants",
    "Forecast",
    "Grant",
    "GrantStore",
    "HistoryEntry",
    "Httpx2Transport",
    "Issue",
    "IssueFields",
    "IssueLink",
    "IssueLinkType",
    "IssueType",
    "IssueUpdate",
    "JiraAuth",
    "JiraClient",
    "JiraConfig",
    "JqlSearchRequest",
    "JqlSearchResponse",
    "LoggingWebhookHandler",
    "Move",
    "NotCreated",
    "OAuth2",
    "Pace",
    "PersonalAccessToken",
    "PollCursor",
    "Poller",
    "PostgresGrants",
    "Priority",
    "Project",
    "RemoteLink",
    "SeenDeliveries",
    "ServerInfo",
    "Sprint",
    "Status",
    "Transition",
    "Transport",
    "UpdateIssueRequest",
    "User",
    "Version",
    "WebhookAttachment",
    "WebhookBoard",
    "WebhookComment",
    "WebhookEvent",
    "WebhookHandler",
    "WebhookIssue",
    "WebhookIssueLink",
    "WebhookLocation",
    "WebhookProcessor",
    "WebhookProject",
    "WebhookRegistration",
    "WebhookSprint",
    "WebhookThing",
    "WebhookUser",
    "WebhookVersion",
    "WebhookWorklog",
    "Worklog",
    "adf",
    "authorize_url",
    "delivery_identity",
    "forecast",
    "jql",
    "parse_event",
    "parse_issue",
    "split",
    "verify",
    "verify_token",
]


def __getattr__(name: str) -> object:
    """Import the store of a fleet's grants when it is asked for: its driver is an extra."""
    if name != "PostgresGrants":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from llm_integrations.store.grants import PostgresGrants  # noqa: PLC0415 - see above
    except ImportError:
        raise ConfigError(
            "PostgresGrants needs the extras: pip install 'llm-integrations[oauth,postgres]'"
        ) from None
    return PostgresGrants
