"""A typed async client for Jira Cloud and Data Center, and the rules of its webhooks.

`JiraClient` calls; `adf` and `jql` write; `verify`, `parse_event` and `WebhookProcessor` receive.
Only these names are public; errors are in `llm_integrations.errors`.
"""

from llm_integrations._core.http import AiohttpTransport, Httpx2Transport, Transport
from llm_integrations.jira import adf, jql
from llm_integrations.jira.auth import AuthManager, BasicAuth, JiraAuth, PersonalAccessToken
from llm_integrations.jira.client import JiraClient
from llm_integrations.jira.config import JiraConfig
from llm_integrations.jira.events import (
    Changelog,
    ChangelogItem,
    WebhookComment,
    WebhookEvent,
    parse_event,
)
from llm_integrations.jira.grants import FileGrants
from llm_integrations.jira.issue import Issue, IssueFields, JqlSearchResponse, parse_issue
from llm_integrations.jira.models import (
    Board,
    Comment,
    Component,
    CreateIssueRequest,
    ErrorResponse,
    FieldInfo,
    IssueType,
    JqlSearchRequest,
    Priority,
    Project,
    ServerInfo,
    Sprint,
    Status,
    Transition,
    UpdateIssueRequest,
    User,
    WebhookRegistration,
)
from llm_integrations.jira.oauth import Grant, GrantStore, OAuth2, authorize_url
from llm_integrations.jira.webhooks import (
    LoggingWebhookHandler,
    WebhookHandler,
    WebhookProcessor,
    delivery_identity,
    verify,
)

__all__ = [
    "AiohttpTransport",
    "AuthManager",
    "BasicAuth",
    "Board",
    "Changelog",
    "ChangelogItem",
    "Comment",
    "Component",
    "CreateIssueRequest",
    "ErrorResponse",
    "FieldInfo",
    "FileGrants",
    "Grant",
    "GrantStore",
    "Httpx2Transport",
    "Issue",
    "IssueFields",
    "IssueType",
    "JiraAuth",
    "JiraClient",
    "JiraConfig",
    "JqlSearchRequest",
    "JqlSearchResponse",
    "LoggingWebhookHandler",
    "OAuth2",
    "PersonalAccessToken",
    "Priority",
    "Project",
    "ServerInfo",
    "Sprint",
    "Status",
    "Transition",
    "Transport",
    "UpdateIssueRequest",
    "User",
    "WebhookComment",
    "WebhookEvent",
    "WebhookHandler",
    "WebhookProcessor",
    "WebhookRegistration",
    "adf",
    "authorize_url",
    "delivery_identity",
    "jql",
    "parse_event",
    "parse_issue",
    "verify",
]
