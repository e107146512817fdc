"""Which handler gets which event: what code registered first, then the settings' rules.

In: registrations and `HandlerRule`s. Out: one `WebhookProcessor`; the first that fits wins.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Final

from llm_integrations.errors import ConfigError
from llm_integrations.jira.webhooks import WebhookProcessor
from llm_integrations.service.handlers import summarise, triage
from llm_integrations.service.pipeline import Registration

if TYPE_CHECKING:
    from llm_integrations.service.handlers import Handler
    from llm_integrations.service.settings import HandlerRule

__all__ = ["Rule", "add_rules", "load_handler", "name_of"]

Rule = tuple[str, str | None, Registration]
"""Event name, project key or None, and who gets it."""

_OURS: Final[dict[str, Handler]] = {"triage": triage, "summarise": summarise}


def load_handler(name: str) -> Handler:
    """Return "triage", "summarise", or what `package.module:function` names.

    Raises:
        ConfigError: there is no such thing, or it cannot be called.
    """
    if name in _OURS:
        return _OURS[name]
    module_name, _, function_name = name.partition(":")
    if not function_name:
        known = ", ".join(sorted(_OURS))
        raise ConfigError(f"handler {name!r}: known are {known}, or package.module:function")
    try:
        found: object = getattr(import_module(module_name), function_name)
    except ImportError as error:
        msg = f"handler {name!r}: {module_name} cannot be imported ({error})"
        raise ConfigError(msg) from error
    except AttributeError as error:
        raise ConfigError(f"handler {name!r}: {module_name} has no {function_name}") from error
    if not callable(found):
        raise ConfigError(f"handler {name!r} is not a function")
    return found


def name_of(handler: Handler) -> str:
    """Return the name of a registered function, for tables and checkpoints."""
    return str(getattr(handler, "__name__", type(handler).__name__))


def add_rules(
    registered: Iterable[Rule], rules: Iterable[HandlerRule]
) -> WebhookProcessor[Registration]:
    """Return the routing table.

    Raises:
        ConfigError: a rule names no handler, or two handlers have one name: events would end as
            stale or superseded for the other's sake.
    """
    routes: WebhookProcessor[Registration] = WebhookProcessor()
    named: dict[str, Handler] = {}
    for event, project, registration in (*registered, *map(_read, rules)):
        name, handler = registration.name, registration.handler
        if named.setdefault(name, handler) != handler:
            raise ConfigError(
                f"two handlers are named {name!r}, the second for {event}: tell them apart"
                " with @app.on(..., name=...)"
            )
        routes.register_handler(registration, event=event, project=project)
    return routes


def _read(rule: HandlerRule) -> Rule:
    handler = load_handler(rule.handler)
    registration = Registration(name=rule.handler, handler=handler, options=rule.options)
    return rule.on, rule.project or None, registration
