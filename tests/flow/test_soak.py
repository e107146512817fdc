"""`make soak`: the fleet for minutes, with everything that goes wrong at once.

The database is a server of its own, for it is restarted: an embedded one, or that of
`TEST_DATABASE_URL`; and once more Debian's, over TCP with TLS and a password.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet.judge import judge
from tests.fleet.plan import Plan
from tests.fleet.stage import play

pytestmark = pytest.mark.soak


async def survive(url: str, folder: Path, config: pytest.Config) -> None:
    """Live through a plan as large as asked, and have it judged."""
    plan = Plan(
        seed=config.getoption("--soak-seed"),
        deliveries=config.getoption("--soak-deliveries"),
        issues=200,
        per_s=config.getoption("--soak-rate"),
        restarts=2,
        freezes=1,
    )
    run = await play(plan, url, folder, settle_s=900)
    verdicts = judge(run.evidence)
    print(run.story, *verdicts, sep="\n")
    assert [one.promise for one in verdicts if not one.kept] == []
    assert set(run.exits) == {0}


async def test_10_000_deliveries_survive_kills_restarts_and_frost(
    restartable_url: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    await survive(restartable_url, tmp_path, pytestconfig)


async def test_the_same_over_tcp_and_tls_on_debians_postgresql(
    debian_url: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    await survive(debian_url, tmp_path, pytestconfig)
