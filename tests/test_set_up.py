"""What the set-up says when it cannot go on: one line, with what to do, and exit 2."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from scripts import bootstrap, chromium
from scripts.coverage_gate import rules_patterns

ROOT: Final = Path(__file__).resolve().parent.parent


def set_up(lock: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", ROOT / "scripts" / "bootstrap.sh", lock],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_python_that_is_too_old_or_absent_is_one_line_and_exit_2() -> None:
    done = set_up("demo", PYTHON="/no/such/python")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "make PYTHON=/path/to/python3" in done.stderr


def test_an_unknown_lock_is_one_line_and_exit_2() -> None:
    done = set_up("production", PYTHON=sys.executable)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "set-up: which lock? sh scripts/bootstrap.sh demo|dev\n"


def test_a_failing_installer_is_shown_with_the_command_to_repeat_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = "import sys; print('the disk is full'); sys.exit(1)"
    with pytest.raises(SystemExit) as stopped:
        bootstrap.run([sys.executable, "-c", code], "install the packages")
    shown = capfd.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert shown[0] == "the disk is full"
    assert shown[1].startswith("set-up: could not install the packages; again, by hand: ")


def test_the_index_that_pip_is_set_to_is_handed_to_uv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\nindex-url = https://packages.example.test/all\ntimeout = 5\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    for name in ("PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    handed = bootstrap.index_settings(shown_by_pip(tmp_path, settings))
    assert handed["UV_DEFAULT_INDEX"] == "https://packages.example.test/all"
    assert set(handed) <= set(bootstrap.PIP_TO_UV.values())


def shown_by_pip(folder: Path, settings: Path) -> list[str]:
    """Return a command that prints the settings as `pip config list` does."""
    program = folder / "pip.py"
    program.write_text(
        "import configparser\n"
        "given = configparser.ConfigParser()\n"
        f"given.read({str(settings)!r})\n"
        "for key, value in given['global'].items():\n"
        "    print(f'global.{key}={value!r}')\n"
    )
    return [sys.executable, str(program)]


def test_an_index_of_uvs_own_wins_over_that_of_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\nindex-url = https://packages.example.test/all\n")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mirror.example.test/all")
    assert "UV_DEFAULT_INDEX" not in bootstrap.index_settings(shown_by_pip(tmp_path, settings))


def test_an_installer_is_not_led_to_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/elsewhere")
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    assert "/elsewhere" not in bootstrap.environment({}).values()


def test_a_finished_set_up_of_dev_serves_for_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / "set-up.json")
    assert not bootstrap.is_ready("demo")
    bootstrap.write_stamp("dev")
    assert bootstrap.is_ready("demo")
    assert bootstrap.is_ready("dev")
    bootstrap.write_stamp("demo")
    assert not bootstrap.is_ready("dev")


def test_the_browser_that_is_missing_is_named_with_the_command_that_installs_it() -> None:
    assert chromium.SKIP_REASON.endswith("sudo apt-get install -y chromium")


def test_the_coverage_of_rules_modules_looks_at_the_modules_of_the_layer_contract() -> None:
    patterns = rules_patterns()
    assert "src/llm_integrations/*/limits.py" in patterns
    assert "src/llm_integrations/*/models/*.py" in patterns
