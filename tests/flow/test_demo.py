"""The demo as people start it, and its judge: each safety rule switched off must be noticed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llm_integrations.demo.cast import cast_play
from llm_integrations.demo.payloads import load_payloads, projects_of
from llm_integrations.errors import ConfigError

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "jira" / "webhooks"
WITHOUT = """
import asyncio, sys
from llm_integrations.demo import DemoOptions, run
from llm_integrations.service.settings import Seams
sys.exit(asyncio.run(run(DemoOptions(plain=True), seams=Seams(**{sys.argv[1]: False}))))
"""

pytestmark = pytest.mark.timeout(240)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python to its end, without a terminal."""
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def _demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return _run("-m", "llm_integrations", "demo", *arguments)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_demo_keeps_every_promise(seed: int) -> None:
    ended = _demo("--seed", str(seed))
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert "All 15 promises kept." in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("rule", "promise"),
    [
        ("dedupe", "a webhook delivered twice is handled once"),
        ("signature", "a forged webhook is refused"),
        ("policy", "a prompt injection cannot make Claude write its link"),
        ("budget", "a ticket over its budget is not paid for"),
        ("own_writes", "the service's own writes are not answered"),
        ("twins", "a comment and its twin event are paid once"),
    ],
)
def test_the_judge_names_the_promise_of_a_rule_that_is_switched_off(
    rule: str, promise: str
) -> None:
    ended = _run("-c", WITHOUT, rule)
    broken = re.findall(r"^BROKEN (.*?)  \(", ended.stdout, re.MULTILINE)
    assert ended.returncode == 1, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert promise in broken


def test_recorded_bodies_each_end_in_one_stored_outcome() -> None:
    if not RECORDED.is_dir():
        pytest.skip("the recorded webhooks are not beside this checkout")
    ended = _demo("--payloads", str(RECORDED), "--json")
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    promises = {p["promise"]: p["found"] for p in json.loads(ended.stdout)["promises"]}
    found = promises["every delivery ends in one stored outcome"]
    sent, stored, still_open = (int(n) for n in re.findall(r"\d+", found))
    assert sent == stored >= len(list(RECORDED.glob("*.json")))
    assert still_open == 0
    assert promises["nothing unexpected is in the log"] == "0 errors"


def test_a_folder_without_bodies_is_one_line_and_exit_2(tmp_path: Path) -> None:
    ended = _demo("--payloads", str(tmp_path))
    assert ended.returncode == 2
    assert "--payloads takes a folder of recorded webhook bodies" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \*\.json files in"):
        load_payloads(tmp_path / "nowhere")


def test_a_seed_casts_the_same_play_and_another_seed_another_one() -> None:
    assert cast_play(3) == cast_play(3)
    assert cast_play(3) != cast_play(4)
    for seed in range(50):
        play = cast_play(seed)
        assert len(play.tickets) == 30
        assert len({ticket.summary for ticket in play.tickets}) == 30
        assert play.ticket("commented").project == "DEMO"


def test_projects_are_read_from_bodies_whatever_they_are() -> None:
    bodies = [b'{"issue":{"key":"AB-CD-1"}}', b"[]", b"no json", b'{"issue":null}']
    assert projects_of(bodies) == ["AB-CD"]


async def test_ctrl_c_ends_the_demo_with_130_and_leaves_nothing() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llm_integrations", "demo", "--keep", "--plain",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(120):
        while b"Ctrl-C ends it." not in await process.stdout.readline():
            assert not process.stdout.at_eof()
    process.send_signal(2)
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    assert b"Traceback" not in errors
