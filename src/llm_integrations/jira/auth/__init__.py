"""Logging in: `manager` keeps a client logged in, `oauth` has the rules, `grants` the store.

A program chooses one of the `JiraAuth` kinds; all the rest goes on by itself.
"""

from llm_integrations.jira.auth.manager import (
    AuthManager,
    BasicAuth,
    JiraAuth,
    Pass,
    PersonalAccessToken,
    Send,
)

__all__ = ["AuthManager", "BasicAuth", "JiraAuth", "Pass", "PersonalAccessToken", "Send"]
