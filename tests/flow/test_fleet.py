"""A fleet under kills, small enough for every run of the tests; `test_soak` is the large one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet.judge import judge
from tests.fleet.plan import Plan
from tests.fleet.stage import Run, play


def verdict(run: Run) -> list[str]:
    """Print how it went; return the promises that were broken."""
    print(run.story)
    verdicts = judge(run.evidence)
    print(*verdicts, sep="\n")
    return [one.promise for one in verdicts if not one.kept]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_500_deliveries_and_10_kills_lose_and_repeat_nothing(
    service_url: str, tmp_path: Path
) -> None:
    plan = Plan(seed=500, deliveries=500, issues=40, per_s=25, kills=10)
    run = await play(plan, service_url, tmp_path)
    assert verdict(run) == []
    assert set(run.exits) == {0}


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_fleet_goes_on_by_itself_after_its_database_crashed_and_buries_nobody_alive(
    restartable_url: str, tmp_path: Path
) -> None:
    plan = Plan(seed=3, deliveries=300, issues=60, per_s=24, kills=0, restarts=3)
    run = await play(plan, restartable_url, tmp_path)
    assert verdict(run) == []
    assert run.takeovers == 0
    assert set(run.exits) == {0}


@pytest.mark.slow
async def test_judge_objects_when_receivers_do_not_dedupe(service_url: str, tmp_path: Path) -> None:
    plan = Plan(
        seed=7, deliveries=30, issues=5, per_s=15, duplicated=0.5, kills=0, planted="dedupe"
    )
    broken = verdict(await play(plan, service_url, tmp_path))
    assert "every delivery has exactly one stored outcome" in broken
    assert "each decision has exactly one effect in Jira" in broken
