"""`costs` and `ask` say what is known of money, and never show the unknown as nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from llm_integrations._core.admission import Actual, Ask
from llm_integrations.anthropic import CostLine, parse_message
from llm_integrations.cli.asking import _as_data, _summary
from llm_integrations.cli.costs import costs
from llm_integrations.governance import Governor


async def _spend(url: str) -> None:
    """Book an attempt whose price is known, one whose outcome is not, and two without a price."""
    known = Ask(group="opus", model="claude-opus-5", hold_pusd=9_000_000)
    unpriced = Ask(group="next", model="claude-next", hold_pusd=None, bounded=False)
    async with Governor.open(url) as governor:
        for ask, actual in (
            (known, Actual(state="settled", cost_pusd=5_000_000)),
            (known, Actual(state="unknown")),
            (unpriced, Actual(state="settled")),
            (unpriced, Actual(state="partial")),
        ):
            await governor.settle(await governor.admit(ask), actual)


@pytest.fixture
def settings(postgres_url: str, tmp_path: Path) -> Path:
    asyncio.run(_spend(postgres_url))
    path = tmp_path / "settings.toml"
    path.write_text(f'database_url = "{postgres_url}"\n')
    return path


def test_costs_tell_attempts_without_a_price_from_free_ones(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert costs(json=True, settings=settings) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["unpriced_attempts"] == 2
    rows = {row["key"]: row for row in told["rows"]}
    assert rows["claude-next"]["unpriced_attempts"] == 2
    assert rows["claude-opus-5"]["unpriced_attempts"] == 0
    assert (rows["claude-opus-5"]["spent_usd"], told["unknown_usd"]) == ("0.000005", "0.000009")
    assert costs(settings=settings) == 0
    table = capsys.readouterr().out
    lines = {line.split()[0]: line for line in table.splitlines() if line.strip()}
    assert "not known (2)" in lines["claude-next"]
    assert "not known" not in lines["claude-opus-5"]
    assert "not known (2)" in lines["total"]


@pytest.mark.parametrize(
    ("spent", "said", "known"),
    [
        (CostLine(attempts=1, cost_pusd=5_000_000), " 0.000005 USD", "0.000005"),
        (CostLine(attempts=1, cost_pusd=0), " 0.000000 USD", "0.000000"),
        (CostLine(attempts=1, unknown=1), " cost not known", None),
        (
            CostLine(attempts=2, cost_pusd=5_000_000, unknown=1),
            " at least 0.000005 USD",
            "0.000005",
        ),
        (
            CostLine(attempts=1, cost_pusd=5_000_000, at_least=1),
            " at least 0.000005 USD",
            "0.000005",
        ),
        (CostLine(attempts=1, cost_pusd=5_000_000, partial=1), " about 0.000005 USD", "0.000005"),
    ],
)
def test_ask_says_how_sure_the_cost_is(spent: CostLine, said: str, known: str | None) -> None:
    message = parse_message(b'{"model": "m", "content": [], "stop_reason": "end_turn"}')
    assert _summary(message, spent).split("\u00b7")[2].rstrip() == said
    data = _as_data(message, spent)
    assert data["known_cost_usd"] == known
    assert data["cost_usd"] == (known if spent.is_exact else None)
