"""Settings, read once at the edge: flags beat environment beats file.

In: a TOML file, the environment as a mapping, overrides from flags. Out: one frozen Struct, or a
`ConfigError` that names the setting and where to set it. No other room reads the environment.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Secret", "load_settings_file", "merge", "to_settings"]

T = TypeVar("T")
Table = dict[str, object]


class Secret:
    """A setting that never prints: not in `str`, `repr`, a traceback's locals, or JSON.

    >>> Secret("s3cret")
    Secret('***')
    """

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value, for the one place that sends it."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"Secret({'***' if self._value else ''!r})"


def load_settings_file(path: Path) -> Table:
    """Read a TOML file.

    Raises:
        ConfigError: it is not there, not readable, or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows mark it
    except OSError as error:
        msg = f"cannot read the settings file {path}: {error.strerror}"
        raise ConfigError(msg) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        detail = error if isinstance(error, tomllib.TOMLDecodeError) else "not UTF-8"
        msg = f"the settings file {path} is no TOML: {detail}"
        raise ConfigError(msg) from None


def merge(under: Mapping[str, object], over: Mapping[str, object]) -> Table:
    """Return `under` with `over` laid on top, table by table; lists are replaced whole."""
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[name] = merge(below, value)
        else:
            merged[name] = value
    return merged


def to_settings(table: Mapping[str, object], settings_type: type[T]) -> T:
    """Check a table against a Struct and return it.

    Raises:
        ConfigError: a setting is unknown or of the wrong type; names it, never shows its value.
    """
    try:
        return msgspec.convert(table, settings_type, dec_hook=_decode_secret, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(_named(str(error))) from None


def _decode_secret(wanted: type, value: object) -> object:
    if wanted is Secret and isinstance(value, str):
        return Secret(value)
    msg = f"Expected `str`, got `{type(value).__name__}`"
    raise TypeError(msg)


def _named(message: str) -> str:
    """Turn msgspec's "... - at `$.a.b`" into "setting a.b: ..."."""
    what, found, where = message.rpartition(" - at ")
    if not found:
        what, where = message, ""
    name = where.strip("`").removeprefix("$").lstrip(".")
    if what.startswith("Object contains unknown field"):
        unknown = what.split("`")[1]
        return f"unknown setting {f'{name}.' if name else ''}{unknown}; see docs/settings.md"
    return f"setting {name or 'file'}: {what}"
