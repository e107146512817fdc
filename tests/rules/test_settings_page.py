"""Every setting is explained, with the default that it has, and the example file is a good one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import msgspec
import pytest

from llm_integrations.errors import ConfigError
from llm_integrations.service import settings
from llm_integrations.service.app.routes import load_handler
from llm_integrations.service.settings import Settings, check_complete, load_settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "llm-integrations.example.toml"
SECRETS = {
    "JIRA_API_TOKEN": "t",
    "JIRA_WEBHOOK_SECRET": "s",
    "ANTHROPIC_API_KEY": "k",
}


def _leaves(struct: type, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield (dotted name, default) of each setting."""
    for each in msgspec.structs.fields(struct):
        name = f"{prefix}{each.encode_name}"
        origin, inside = get_origin(each.type), get_args(each.type)
        structs = [kind for kind in (each.type, *inside) if msgspec.inspect.is_struct_type(kind)]
        if not structs:
            yield name, each.default
        elif origin is dict:
            yield from _leaves(structs[0], f"{name}.*.")
        elif origin is tuple:
            yield from _leaves(structs[0], f"{name}[].")
        else:
            yield from _leaves(structs[0], f"{name}.")


def _documented() -> dict[str, str]:
    """Return the second column of the page's tables by their first."""
    return dict(re.findall(r"^\| `([^`]+)` \| (.+?) \|", PAGE, flags=re.MULTILINE))


def test_every_setting_has_an_entry_and_every_entry_is_a_setting() -> None:
    assert set(_documented()) == {name for name, _ in _leaves(Settings)}


def test_documented_defaults_are_those_of_the_code() -> None:
    documented = _documented()
    for name, default in _leaves(Settings):
        written = re.fullmatch(r"`(.+)`", documented[name])
        if written and default is not msgspec.NODEFAULT:
            value = tomllib.loads(f"x = {written[1]}")["x"]
            assert msgspec.json.decode(msgspec.json.encode(default)) == value, name


@pytest.mark.parametrize(
    "variable",
    [*settings._ENVIRONMENT, *settings._SITE_ENVIRONMENT, "JIRA_WEBHOOK_SECRET"],
)
def test_every_variable_is_named(variable: str) -> None:
    assert f"`{variable}`" in PAGE


def test_example_file_is_complete_once_the_secrets_are_in_the_environment() -> None:
    loaded = load_settings(EXAMPLE, SECRETS)
    check_complete(loaded)
    assert loaded.mode == "dry-run"


def test_what_the_example_comments_out_is_the_default() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    shown = re.sub(r"^# (?=\[|\w+ = )", "", text, flags=re.MULTILINE)
    whole = msgspec.convert(
        {name: value for name, value in tomllib.loads(shown).items() if name != "sites"},
        Settings,
        dec_hook=lambda wanted, value: wanted(value),
    )
    assert msgspec.structs.replace(whole, sites={}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"), [("reserve", "guess"), ("over_budget", "ask"), ("least_max_tokens", 0)]
)
def test_a_setting_of_money_that_makes_no_sense_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"setting budgets.{name}: "):
        load_settings(None, {}, {"budgets": {name: value}})


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"sites": {"a": {"requests_per_minute": 0}}}, "sites.*requests_per_minute"),
        ({"claude": {"requests_per_minute": -1}}, "claude.requests_per_minute"),
    ],
)
def test_a_number_that_makes_no_sense_is_named(settings: dict[str, object], name: str) -> None:
    with pytest.raises(ConfigError, match=f"setting {name}: "):
        load_settings(None, {}, settings)


def test_two_webhook_secrets_may_have_a_blank_after_the_comma() -> None:
    for text in ("new,old", "new, old", " new ,old,"):
        site = load_settings(None, {"JIRA_WEBHOOK_SECRET": text}).sites["jira"]
        assert [one.reveal() for one in site.webhook_secrets] == ["new", "old"]
    (alone,) = load_settings(None, {"JIRA_WEBHOOK_SECRET": "a b "}).sites["jira"].webhook_secrets
    assert alone.reveal() == "a b "


def test_a_handler_that_cannot_be_imported_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_handlers.py").write_text("import not_installed_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"my_handlers cannot be imported .*not_installed_here"):
        load_handler("my_handlers:mine")


def test_a_file_that_an_editor_marked_as_utf_8_is_read(tmp_path: Path) -> None:
    marked = tmp_path / "marked.toml"
    marked.write_text('mode = "apply"', encoding="utf-8-sig")
    assert load_settings(marked, SECRETS).mode == "apply"
