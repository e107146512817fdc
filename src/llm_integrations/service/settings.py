"""The service's settings: one TOML file plus the environment, safe by default.

Every default is the careful one: dry run, no project mapped, 5 USD a day, 0.25 USD an issue, own
writes ignored, loopback only. `docs/settings.md` explains each; a test holds it complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from llm_integrations._core.config import Secret, load_settings_file, merge, to_settings
from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Allow",
    "Budgets",
    "Claude",
    "Console",
    "HandlerRule",
    "Receiver",
    "Seams",
    "Settings",
    "Site",
    "check_complete",
    "load_settings",
]

DEFAULT_SITE: Final = "jira"


class Site(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One Jira site, received at `/webhooks/jira/{name}`.

    Attributes:
        base_url: "https://acme.atlassian.net", or a Data Center URL with its context path.
        email: with `api_token`, for Jira Cloud.
        pat: a personal access token, for Data Center.
        webhook_secrets: one, or two while a secret is being replaced.
        projects: keys of the projects that may be written to; no other is.
        requests_per_minute: at most, by each worker; Jira's own limits are obeyed besides.
    """

    base_url: str = ""
    email: str = ""
    api_token: Secret = Secret()
    pat: Secret = Secret()
    webhook_secrets: tuple[Secret, ...] = ()
    projects: tuple[str, ...] = ()
    requests_per_minute: Annotated[int, msgspec.Meta(ge=1)] = 600


class Claude(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Claude API.

    Attributes:
        admin_key: "sk-ant-admin...", for `costs reconcile` only; the service never uses it.
    """

    api_key: Secret = Secret()
    admin_key: Secret = Secret()
    base_url: str = "https://api.anthropic.com"
    model: str = "claude-sonnet-5-5"
    requests_per_minute: Annotated[int, msgspec.Meta(ge=1)] = 50


class Receiver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where webhooks come in; put a TLS proxy in front before you bind to more than loopback."""

    host: str = "127.0.0.1"
    port: int = 8080


class Console(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The operator's page, on a listener of its own; without a token one is made at start."""

    host: str = "127.0.0.1"
    port: int = 8081
    token: Secret = Secret()


class Budgets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hard budgets in USD, as decimal strings.

    Attributes:
        reserve: what a call claims of them before it is sent, see `governance.Budget`.
        over_budget: what becomes of a call that does not fit, see `AnthropicConfig`.
        least_max_tokens: a call is not lowered below this, but refused.
    """

    day_usd: str = "5.00"
    issue_usd: str = "0.25"
    reserve: Literal["bound", "estimate"] = "bound"
    over_budget: Literal["refuse", "lower"] = "refuse"
    least_max_tokens: Annotated[int, msgspec.Meta(ge=1)] = 256


class Allow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be written; everything else is refused.

    Attributes:
        link_hosts: hosts that written text may link to; the site's own host always may.
        storm_limit: writes on one issue within an hour before the storm guard closes.
    """

    actions: tuple[str, ...] = ("AddComment", "EditComment", "AddLabels", "SetFields")
    fields: tuple[str, ...] = ("priority", "components", "issuetype")
    link_hosts: tuple[str, ...] = ()
    storm_limit: int = 5


class HandlerRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sends events to a handler; the first rule that fits wins.

    Attributes:
        on: an event's name ("jira:issue_created"), or "*" for all.
        handler: "triage", "summarise", or "package.module:function".
        project: only events of this project; all without it.
        options: handed to the handler as `ctx.options`.
    """

    on: str
    handler: str
    project: str = ""
    options: dict[str, str | int | float | bool] = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the service can be told.

    Attributes:
        mode: "dry-run" stores proposals; "apply" writes them.
        sites: by the name in the webhook URL.
        metrics: "host:port" on which probes and Prometheus are answered; empty for nowhere.
        database_url: a PostgreSQL; empty for the embedded one.
        data_dir: where the embedded one keeps its data; empty for the usual place.
        supersede: end a waiting event when a newer one of its issue and handler waits too.
        attempts: how often a failing event is tried.
        drain_s: how long a stopping service waits for running handlers.
        ledger_days: what calls cost is kept one by one for so long, and as sums for good.
        retention_days: what a delivery said is kept for so long after its end.
        outcome_days: that it came, and what became of it, is kept for so long.
    """

    mode: Literal["dry-run", "apply"] = "dry-run"
    sites: dict[str, Site] = {}
    claude: Claude = Claude()
    database_url: Secret = Secret()
    data_dir: str = ""
    receiver: Receiver = Receiver()
    console: Console = Console()
    metrics: str = ""
    budgets: Budgets = Budgets()
    allow: Allow = Allow()
    handlers: tuple[HandlerRule, ...] = (
        HandlerRule(on="jira:issue_created", handler="triage"),
        HandlerRule(on="comment_created", handler="summarise"),
    )
    supersede: bool = True
    attempts: Annotated[int, msgspec.Meta(ge=1)] = 5
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 20.0
    ledger_days: int = 400
    retention_days: int = 14
    outcome_days: int = 400


class Seams(msgspec.Struct, frozen=True, kw_only=True):
    """Switches a safety rule off, to prove that the checks notice: code only, never settings."""

    dedupe: bool = True
    signature: bool = True
    policy: bool = True
    budget: bool = True
    own_writes: bool = True
    twins: bool = True


_SITE_ENVIRONMENT: Final = {
    "JIRA_BASE_URL": "base_url",
    "JIRA_EMAIL": "email",
    "JIRA_API_TOKEN": "api_token",
    "JIRA_PAT": "pat",
}
_ENVIRONMENT: Final = {
    "ANTHROPIC_API_KEY": ("claude", "api_key"),
    "ANTHROPIC_ADMIN_KEY": ("claude", "admin_key"),
    "ANTHROPIC_BASE_URL": ("claude", "base_url"),
    "ANTHROPIC_MODEL": ("claude", "model"),
    "CONSOLE_TOKEN": ("console", "token"),
    "DATABASE_URL": ("", "database_url"),
    "METRICS_ADDRESS": ("", "metrics"),
}


def load_settings(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object] | None = None
) -> Settings:
    """Read the file, then the environment, then the overrides, each over the one before.

    The `JIRA_*` variables speak of the only site in the file, or of a site named "jira" where the
    file has none; `JIRA_WEBHOOK_SECRET` may hold two secrets joined by a comma.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or of the wrong type.
    """
    table = load_settings_file(path) if path is not None else {}
    table = merge(table, _from_environment(environ, table))
    return to_settings(merge(table, overrides or {}), Settings)


def check_complete(settings: Settings, *, where: str = "llm-integrations.toml") -> None:
    """Check that the service can start with these settings.

    Raises:
        ConfigError: names the first missing setting, and where to set it.
    """
    if not settings.sites:
        raise _missing("sites.jira.base_url", "JIRA_BASE_URL", where)
    for name, site in settings.sites.items():
        if not site.base_url:
            raise _missing(f"sites.{name}.base_url", "JIRA_BASE_URL", where)
        if not site.pat and not (site.email and site.api_token):
            missing = "api_token" if site.email else "email"
            raise _missing(f"sites.{name}.{missing}", f"JIRA_{missing.upper()}", where)
        if not site.webhook_secrets or not all(site.webhook_secrets):
            raise _missing(f"sites.{name}.webhook_secrets", "JIRA_WEBHOOK_SECRET", where)
        if len(site.webhook_secrets) > 2:
            msg = f"setting sites.{name}.webhook_secrets: at most two secrets can be live"
            raise ConfigError(msg)
    if not settings.claude.api_key:
        raise _missing("claude.api_key", "ANTHROPIC_API_KEY", where)


def _missing(name: str, variable: str, where: str) -> ConfigError:
    return ConfigError(f"missing setting {name}: set it in {where} or as {variable}")


def _from_environment(environ: Mapping[str, str], table: Mapping[str, object]) -> dict[str, object]:
    """Return the environment's settings as a table of their own."""
    found: dict[str, object] = {}
    for variable, (section, name) in _ENVIRONMENT.items():
        if value := environ.get(variable):
            found = merge(found, {section: {name: value}} if section else {name: value})
    site: dict[str, object] = {
        name: environ[variable]
        for variable, name in _SITE_ENVIRONMENT.items()
        if environ.get(variable)
    }
    if secrets := environ.get("JIRA_WEBHOOK_SECRET"):
        several = [part.strip() for part in secrets.split(",")]
        site["webhook_secrets"] = [one for one in several if one] if several[1:] else [secrets]
    if site:
        sites = table.get("sites")
        names = list(sites) if isinstance(sites, Mapping) else []
        if len(names) > 1:
            msg = "JIRA_* variables fit one site only, and the file names several: use the file"
            raise ConfigError(msg)
        found["sites"] = {names[0] if names else DEFAULT_SITE: site}
    return found
