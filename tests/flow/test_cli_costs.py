"""`costs`, its page, its export and `ask` say what is known of money, and never hide the rest."""

from __future__ import annotations

import asyncio
import csv
import json
import re
from pathlib import Path

import pytest

from llm_integrations._core.admission import Actual, Ask
from llm_integrations.anthropic import CostLine, parse_message
from llm_integrations.cli.asking import _as_data, _summary
from llm_integrations.cli.costs import costs, export
from llm_integrations.errors import ConfigError
from llm_integrations.governance import Budget, Governor


async def _spend(url: str) -> None:
    """Book an attempt whose price is known, one whose outcome is not, and two without a price."""
    known = Ask(group="opus", model="claude-opus-5", hold_pusd=9_000_000)
    unpriced = Ask(group="next", model="claude-next", hold_pusd=None, bounded=False)
    async with Governor.open(url) as governor:
        for ask, actual in (
            (known, Actual(state="settled", cost_pusd=5_000_000, raw=b'{"input_tokens":5}')),
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


def test_costs_show_each_budget_with_its_last_alert_and_what_passed_it(
    postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def spend() -> None:
        likely = Budget("likely", usd="0.01", window="total", reserve="estimate")
        ask = Ask(group="opus", model="m", hold_pusd=10**11, estimate_pusd=10**9)
        async with Governor.open(postgres_url, budgets=[likely]) as governor:
            actual = Actual(state="settled", cost_pusd=2 * 10**10)
            await governor.settle(await governor.admit(ask), actual)

    asyncio.run(spend())
    path = tmp_path / "settings.toml"
    path.write_text(f'database_url = "{postgres_url}"\n')
    assert costs(settings=path) == 0
    said = "budget likely: 0.020000 of 0.010000 USD spent, 0.010000 USD too much, alerted at 100 %"
    assert said in capsys.readouterr().out.splitlines()
    assert costs(json=True, settings=path) == 0
    assert json.loads(capsys.readouterr().out)["budgets"] == [
        {
            "name": "likely",
            "key": "",
            "limit_usd": "0.010000",
            "spent_usd": "0.020000",
            "held_usd": "0.000000",
            "overrun_usd": "0.010000",
            "reserve": "estimate",
            "alerted_percent": 100,
        }
    ]


def test_the_page_is_one_file_that_asks_nobody(settings: Path, tmp_path: Path) -> None:
    page = tmp_path / "spend.html"
    assert costs(html=page, days=2, zone="Europe/Berlin", settings=settings) == 0
    text = page.read_text()
    assert "claude-opus-5" in text
    assert "at most 0.000009 USD more" in text
    assert "2 attempts of models without a known price" in text
    assert "Expected this month" in text
    assert not re.search(r"(src|href)=", text)


def test_an_export_has_every_attempt_in_both_forms(settings: Path, tmp_path: Path) -> None:
    table, lines = tmp_path / "costs.csv", tmp_path / "costs.jsonl"
    assert export(to=table, settings=settings) == 0
    assert export(to=lines, settings=settings) == 0
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    entries = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sorted(row["state"] for row in rows) == ["partial", "settled", "settled", "unknown"]
    assert [row["call_id"] for row in rows] == [entry["call_id"] for entry in entries]
    paid = next(entry for entry in entries if entry["cost_pusd"] == 5_000_000)
    assert (paid["model"], paid["raw"]) == ("claude-opus-5", {"input_tokens": 5})


def test_an_export_of_an_issue_without_attempts_is_empty(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(issue="ABC-1", format="jsonl", settings=settings) == 0
    told = capsys.readouterr()
    assert (told.out, "0 attempts written" in told.err) == ("", True)


@pytest.mark.parametrize(
    ("days", "zone", "to", "why"),
    [(0, "UTC", "x.html", "counts from 1"), (1, "Mars", "x.html", "Mars"), (1, "UTC", "", "Is a")],
)
def test_a_page_that_cannot_be_written_says_why(
    settings: Path, tmp_path: Path, days: int, zone: str, to: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        costs(html=tmp_path / to, days=days, zone=zone, settings=settings)


def test_a_place_that_cannot_be_written_is_told(settings: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        export(to=tmp_path / "none" / "x.csv", settings=settings)


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
