"""How the simulated site says no: one exception that becomes Jira's error envelope.

Raised by every rule of the site, answered in one place (`server`). The texts are those Jira sends;
clients should match on status and field, never on text.
"""

from __future__ import annotations

from collections.abc import Mapping

from .records import Json

NO_ISSUE = "Issue does not exist or you do not have permission to see it."
# Cloud, since 2019: https://developer.atlassian.com/cloud/jira/platform/deprecation-notice-
# user-privacy-api-migration-guide/
NO_USER_NAMES = "Users are named by 'accountId'; 'username' and 'key' are not supported."


class Refused(Exception):
    """A request the site declines: `status` plus `errorMessages` and per-field `errors`."""

    def __init__(
        self,
        status: int,
        *messages: str,
        errors: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        page: bytes | None = None,
    ) -> None:
        """Keep the parts of the envelope; `page` is HTML in its place, as gateways send."""
        super().__init__(*messages)
        self.status = status
        self.messages = list(messages)
        self.errors = dict(errors or {})
        self.headers = dict(headers or {})
        if page is not None:
            self.headers["Content-Type"] = "text/html; charset=utf-8"
        self.page = page

    def envelope(self) -> Json:
        """Return the body: https://developer.atlassian.com/cloud/jira/platform/rest/v3/intro/."""
        return {"errorMessages": self.messages, "errors": self.errors}


def no_issue() -> Refused:
    """Return the 404 that hides whether an issue is absent or only invisible."""
    return Refused(404, NO_ISSUE)


def bad_field(field: str, message: str) -> Refused:
    """Return the 400 that blames one field."""
    return Refused(400, errors={field: message})
