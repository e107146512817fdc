"""Finds what a command is about: its settings, of a file or the environment, and its ledger."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

from cyclopts import Parameter

if TYPE_CHECKING:
    from llm_integrations.service.settings import Settings

__all__ = ["LedgerUrl", "SettingsFile", "load"]

_DEFAULT: Final = Path("llm-integrations.toml")

SettingsFile: TypeAlias = Annotated[
    Path | None,
    Parameter(name="--settings", help="The TOML file; ./llm-integrations.toml when it is there."),
]


LedgerUrl: TypeAlias = Annotated[
    str | None,
    Parameter(
        name="--ledger",
        help=(
            "Another ledger than the service's, of the gateway or of a program of yours:"
            " sqlite:///FILE or postgresql://..."
        ),
    ),
]


def load(path: Path | None) -> tuple[Settings, Path]:
    """Return the settings, and the file in which a missing one belongs.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or of the wrong type.
    """
    from llm_integrations.service.settings import load_settings

    if path is None and _DEFAULT.is_file():
        path = _DEFAULT
    return load_settings(path, os.environ), path or _DEFAULT
