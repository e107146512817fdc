"""The service: Jira's webhooks in, Claude's work on the issue, the result written back once.

What people who write handlers need stands in `__all__`. Names are imported when first used, so
that reading settings or a list of deliveries does not load web server and engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from llm_integrations.errors import GiveUp, RetryLater

if TYPE_CHECKING:
    from llm_integrations.service.actions import (
        Action,
        AddComment,
        AddLabels,
        EditComment,
        NoAction,
        SetFields,
        Transition,
    )
    from llm_integrations.service.app import App
    from llm_integrations.service.handlers import Context, Handler
    from llm_integrations.service.settings import Settings, load_settings

__all__ = [
    "Action",
    "AddComment",
    "AddLabels",
    "App",
    "Context",
    "EditComment",
    "GiveUp",
    "Handler",
    "NoAction",
    "RetryLater",
    "SetFields",
    "Settings",
    "Transition",
    "load_settings",
]

_ROOMS: Final = {
    "App": "app",
    "Context": "handlers",
    "Handler": "handlers",
    "Settings": "settings",
    "load_settings": "settings",
}


def __getattr__(name: str) -> object:
    """Import a public name from the module that defines it.

    Raises:
        ImportError: what it needs is not installed; the message names the extra.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_ROOMS.get(name, 'actions')}"), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install 'llm-integrations[service]'",
            name=error.name,
        ) from error
