"""`make soak`: the fleet for minutes, with everything that goes wrong at once.

The database is a server of its own, for it is restarted; with `TEST_DATABASE_URL` it is that one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet.judge import judge
from tests.fleet.plan import Plan
from tests.fleet.stage import play


@pytest.mark.soak
async def test_10_000_deliveries_survive_kills_restarts_and_frost(
    restartable_url: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    plan = Plan(
        seed=pytestconfig.getoption("--soak-seed"),
        deliveries=pytestconfig.getoption("--soak-deliveries"),
        issues=200,
        per_s=pytestconfig.getoption("--soak-rate"),
        restarts=2,
        freezes=1,
        # A process takes as long to start as ever, so minutes cannot be shorter than this.
        retry_delay_s=(10.0, 30.0),
    )
    run = await play(plan, restartable_url, tmp_path, settle_s=600)
    verdicts = judge(run.evidence)
    print(run.story, *verdicts, sep="\n")
    assert [one.promise for one in verdicts if not one.kept] == []
    assert set(run.exits) == {0}
