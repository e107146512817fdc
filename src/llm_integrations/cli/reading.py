"""Finds what a command is about: settings of a file or the environment, a ledger, a text."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

from cyclopts import Parameter

from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from llm_integrations.service.settings import Settings

__all__ = ["LedgerUrl", "SettingsFile", "Text", "load", "read_text"]

_DEFAULT: Final = Path("llm-integrations.toml")

SettingsFile: TypeAlias = Annotated[
    Path | None,
    Parameter(name="--settings", help="The TOML file; ./llm-integrations.toml when it is there."),
]

Text: TypeAlias = Annotated[str | None, Parameter(allow_leading_hyphen=True)]
_OPTION: Final = re.compile(r"--?[A-Za-z][\w-]*(=.*)?")

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


def read_text(given: str | None, *, command: str) -> str:
    """Return a text of the command line, or else of stdin.

    Raises:
        ConfigError: there is none, or what looks like a mistyped option.
    """
    if given is not None and _OPTION.fullmatch(given) is not None:
        raise ConfigError(f"Unknown option: {given}. A text that looks like one comes by stdin")
    text = given if given is not None or sys.stdin.isatty() else sys.stdin.read()
    if not text or text.isspace():
        raise ConfigError(f"there is no text; see: llm-integrations {command} --help")
    return text
