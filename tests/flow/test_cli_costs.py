"""`costs`, its page, its export and `ask` say what is known of money, and never hide the rest."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import secrets
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from subprocess import PIPE, Popen
from urllib.parse import urlsplit

import psycopg
import pytest

from llm_integrations._core.admission import Actual, Ask
from llm_integrations.anthropic import CostLine, parse_message
from llm_integrations.cli.asking import _as_data, _summary
from llm_integrations.cli.costs import costs, export, reconcile
from llm_integrations.errors import ConfigError, StoreError
from llm_integrations.governance import Budget, BudgetAlert, Governor
from llm_integrations.service.database import home_folder, open_database


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


@pytest.mark.parametrize("columns", [40, 80, 100, 160])
def test_no_terminal_is_too_narrow_for_names_and_amounts(
    columns: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    models = {"claude-sonnet-4-5-20250929": 123_456_789_012_345, "claude-opus-5-5": 10**14}

    async def spend() -> None:
        async with Governor.open(url) as governor:
            for model, pusd in models.items():
                ask = Ask(group=model, model=model, hold_pusd=10**12 + 12_345)
                done = Actual(state="settled", cost_pusd=pusd)
                await governor.settle(await governor.admit(ask), done)
                await governor.settle(await governor.admit(ask), Actual(state="unknown"))

    asyncio.run(spend())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for name, value in {"TERM": "xterm", "COLUMNS": str(columns), "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    assert costs(ledger=url) == 0
    table = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()[:4]
    first, second = table[1].split(), table[2].split()
    assert (first[0], *first[-3:]) == (
        "claude-sonnet-4-5-20250929",
        *("2", "123.456789012345", "1.000000012345"),
    )
    assert second[0] == "claude-opus-5-5"
    assert table[3].split() == ["total", "4", "223.456789012345", "2.00000002469"]
    if columns >= 80:
        assert max(map(len, table)) <= columns
        assert len(first[1]) > len(second[1])  # bars are still in proportion


def test_costs_show_each_budget_with_its_last_alert_and_what_passed_it(
    postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def spend() -> None:
        likely = Budget("likely", usd="0.01", window="total", reserve="estimate")
        ask = Ask(group="opus", model="m", hold_pusd=10**11, estimate_pusd=10**9)
        sure = Budget("sure", usd="1", window="total")
        async with Governor.open(postgres_url, budgets=[likely, sure]) as governor:
            actual = Actual(state="partial", cost_pusd=2 * 10**10, at_most_pusd=3 * 10**10)
            await governor.settle(await governor.admit(ask), actual)

    asyncio.run(spend())
    path = tmp_path / "settings.toml"
    path.write_text(f'database_url = "{postgres_url}"\n')
    assert costs(settings=path) == 0
    said = "budget likely: 0.020000 of 0.010000 USD spent, 0.010000 USD too much, alerted at 100 %"
    unsure = "budget sure: 0.020000 of 1.000000 USD spent, 0.010000 USD unsure"
    assert capsys.readouterr().out.splitlines()[-2:] == [said, unsure]
    assert costs(json=True, settings=path) == 0
    *likely, sure = json.loads(capsys.readouterr().out)["budgets"]
    assert (sure["spent_usd"], sure["unsure_usd"]) == ("0.020000", "0.010000")
    assert likely == [
        {
            "name": "likely",
            "key": "",
            "limit_usd": "0.010000",
            "spent_usd": "0.020000",
            "unsure_usd": "0.000000",
            "held_usd": "0.000000",
            "overrun_usd": "0.010000",
            "reserve": "estimate",
            "alerted_percent": 100,
        }
    ]


def test_what_strangers_call_themselves_moves_no_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, evil = f"sqlite:///{tmp_path / 'x.db'}", "\x1b[2J\rteam"

    async def spend() -> None:
        budget = Budget("each", usd="1", window="total", by="team")
        async with Governor.open(url, budgets=[budget]) as governor:
            ask = Ask(group="g", model=evil, hold_pusd=9, tags={"team": evil})
            await governor.settle(await governor.admit(ask), Actual(state="settled", cost_pusd=5))

    asyncio.run(spend())
    assert costs(ledger=url) == 0
    assert costs(ledger=url, tag="team") == 0
    told = capsys.readouterr().out
    assert "budget each of \N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}team: 0.0" in told
    assert "\x1b" not in told
    assert "\r" not in told


def test_a_zone_that_nobody_knows_is_named_with_its_option() -> None:
    with pytest.raises(ConfigError, match="--zone: there is no time zone 'Mars/Olympus'"):
        costs(zone="Mars/Olympus", ledger="sqlite:///none.db")


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


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        (b'{\n  "input_tokens": 5,\r\n  "x": [1,\n 2]\n}', {"input_tokens": 5, "x": [1, 2]}),
        (b'{"x":"a\xffb\xe2\x80\xa8"}', {"x": "a\N{REPLACEMENT CHARACTER}b\u2028"}),
    ],
)
def test_a_line_of_an_export_is_one_line_however_the_usage_came(
    usage: bytes, told: dict[str, object], tmp_path: Path
) -> None:
    url, lines = f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "x.jsonl"

    async def spend() -> None:
        async with Governor.open(url) as governor:
            for _ in range(2):
                permit = await governor.admit(Ask(group="g", hold_pusd=9))
                await governor.settle(permit, Actual(state="settled", cost_pusd=5, raw=usage))

    asyncio.run(spend())
    assert export(ledger=url, to=lines) == 0
    found = lines.read_bytes().rstrip(b"\n").split(b"\n")
    assert [json.loads(line)["raw"] for line in found] == [told, told]


@pytest.mark.parametrize("model", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_table_holds_no_formula_whatever_a_caller_names_a_model(
    model: str, tmp_path: Path
) -> None:
    url, table, lines = f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "x.csv", tmp_path / "x.jsonl"

    async def spend() -> None:
        async with Governor.open(url) as governor:
            ask = Ask(group=model, model=model, hold_pusd=9, tags={model: model})
            actual = Actual(state="settled", cost_pusd=5, model=model, request_id=model)
            await governor.settle(await governor.admit(ask), actual)

    asyncio.run(spend())
    assert export(ledger=url, to=table) == 0
    assert export(ledger=url, to=lines) == 0
    with table.open(newline="") as file:
        [row] = csv.DictReader(file)
    assert not [
        value for value in row.values() if value.startswith(("=", "+", "-", "@", "\t", "\r"))
    ]
    assert (row["model"], row["cost_pusd"]) == (f"'{model}", "5")
    assert json.loads(lines.read_text())["model"] == model


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


@pytest.mark.parametrize("days", [-5, 0, 900_000, 99_999_999_999])
@pytest.mark.parametrize("command", [costs, export, reconcile])
def test_days_that_cannot_be_counted_are_refused(
    command: Callable[..., int], days: int, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    asyncio.run(_spend(url))
    with pytest.raises(ConfigError, match=f"--days is {days}: it counts from 1 to 36,500"):
        command(days=days, ledger=url)


def test_a_place_that_cannot_be_written_is_told(settings: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        export(to=tmp_path / "none" / "x.csv", settings=settings)


async def test_files_written_by_two_at_once_are_whole_at_every_moment(tmp_path: Path) -> None:
    url, folder = f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "out"
    folder.mkdir()
    out, alone = folder / "costs.csv", tmp_path / "alone.csv"
    async with Governor.open(url) as governor:
        for number in range(600):
            ask = Ask(group="g", model="m", hold_pusd=9, tags={"issue": f"A-{number % 3}"})
            await governor.settle(await governor.admit(ask), Actual(state="settled", cost_pusd=5))
    whole = [b"of last month"]
    for issue in ("A-1", None):
        await asyncio.to_thread(export, ledger=url, to=alone, issue=issue)
        whole.append(alone.read_bytes())
    out.write_bytes(whole[0])
    out.chmod(0o600)
    writing = asyncio.gather(
        *(
            asyncio.to_thread(export, ledger=url, to=out, issue=issue)
            for issue in ("A-1", None, "A-1", None)
        )
    )
    while not writing.done():
        assert out.read_bytes() in whole
        await asyncio.sleep(0)
    await writing
    assert out.read_bytes() in whole[1:]
    assert (list(folder.iterdir()), out.stat().st_mode & 0o777) == ([out], 0o600)


def test_a_link_stays_one_and_a_pipe_is_written_to(settings: Path, tmp_path: Path) -> None:
    kept, link, pipe = tmp_path / "kept.csv", tmp_path / "link.csv", tmp_path / "pipe"
    link.symlink_to(kept)
    kept.touch()
    assert export(to=link, settings=settings) == 0
    assert link.is_symlink()
    os.mkfifo(pipe)
    with Popen(["cat", pipe], stdout=PIPE) as reader:
        assert export(to=pipe, settings=settings) == 0
        assert reader.communicate()[0] == kept.read_bytes() != b""
    assert pipe.is_fifo()


# --- another ledger than the service's ----------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of books that a program of its own has kept."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'my costs.db'}"
    else:
        url = request.getfixturevalue("postgres_url")
    asyncio.run(_spend(url))
    return url


def test_a_ledger_that_is_named_is_reported_on_without_any_settings(
    ledger: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("llm-integrations.toml").write_text("this is = no TOML")
    assert costs(ledger=ledger, json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["total_usd"], told["unknown_usd"]) == ("0.000005", "0.000009")
    assert export(ledger=ledger, to=Path("costs.jsonl")) == 0
    assert len(Path("costs.jsonl").read_text().splitlines()) == 4
    assert costs(ledger=ledger, html=Path("spend.html")) == 0
    assert "claude-opus-5" in Path("spend.html").read_text()


def test_money_is_summed_up_by_whatever_tag_callers_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'costs.db'}"

    async def spend() -> None:
        async with Governor.open(url) as governor:
            for team, cost in (
                ("search", 7_000_000),
                ("billing", 2_000_000),
                ("search", 1_000_000),
            ):
                ask = Ask(group="opus", model="m", hold_pusd=cost, tags={"team": team})
                actual = Actual(state="settled", cost_pusd=cost)
                await governor.settle(await governor.admit(ask), actual)

    asyncio.run(spend())
    assert costs(ledger=url, tag="team", json=True) == 0
    told = json.loads(capsys.readouterr().out)
    spent = [(row["key"], row["spent_usd"]) for row in told["rows"]]
    assert (told["by"], spent) == ("team", [("search", "0.000008"), ("billing", "0.000002")])
    page = tmp_path / "spend.html"
    assert costs(ledger=url, tag="team", html=page) == 0
    by_team, by_model = re.split("By model", page.read_text().partition("By team")[2])[:2]
    assert by_team.index("search") < by_team.index("billing")
    assert "By issue" in by_model
    with pytest.raises(ConfigError, match="--tag model"):
        costs(ledger=url, tag="model")


async def test_a_report_takes_no_alert_from_the_program_that_should_tell(
    ledger: str, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[BudgetAlert] = []
    cap = Budget("cap", usd="0.01", window="total")
    async with Governor.open(ledger, budgets=[cap], on_alert=told.append) as governor:
        ask = Ask(group="opus", model="m", hold_pusd=9 * 10**9)
        await governor.settle(
            await governor.admit(ask), Actual(state="settled", cost_pusd=9 * 10**9)
        )
        assert await asyncio.to_thread(costs, ledger=ledger) == 0
        assert told == []
        assert "% are spent" not in capfd.readouterr().err
    assert [(alert.budget, alert.percent) for alert in told] == [("cap", 80)]


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE schema_version (version INTEGER)")
        database.execute("INSERT INTO schema_version VALUES (1)")
        database.commit()


def _of_version(path: Path, version: int) -> None:
    asyncio.run(_spend(f"sqlite:///{path}"))
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE schema_version SET version = ?", (version,))
        database.commit()


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "of another program": (_foreign, "is no ledger of llm-integrations"),
    "empty": (Path.touch, "is no ledger of llm-integrations"),
    "no database": (lambda path: path.write_text("hello" * 1_000), "not a database"),
    "newer": (lambda path: _of_version(path, 99), "upgrade llm-integrations"),
    "older": (lambda path: _of_version(path, 2), "has schema 2, and this version .* reads"),
    "a folder": (Path.mkdir, "there is no file"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_ledger_of_this_version_is_refused_and_left_as_it_is(
    kind: str, tmp_path: Path
) -> None:
    make, why = FILES[kind]
    path, out = tmp_path / "some.db", tmp_path / "costs.csv"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    out.write_text("of last month")
    with pytest.raises((ConfigError, StoreError), match=why):
        export(ledger=f"sqlite:///{path}", to=out)
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert out.read_text() == "of last month"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("memory:", "--ledger memory: no other process can read"),
        ("costs.db", "--ledger: a store is memory:, sqlite:///path or"),
        ("sqlite://costs.db", "sqlite:///path/to/file"),
        ("mysql://host/database", "--ledger: a store is"),
        ("postgresql://user:s%40cret@127.0.0.1:1/database", "127.0.0.1:1/database: "),
        ("postgresql://user:s@cret@127.0.0.1:1/database", "is not of the form"),
    ],
)
def test_an_address_that_leads_to_no_ledger_says_why_and_keeps_its_password(
    url: str, why: str
) -> None:
    with pytest.raises((ConfigError, StoreError), match=why) as caught:
        costs(ledger=url)
    assert "cret" not in str(caught.value)


def test_asking_for_a_file_that_is_not_there_makes_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--ledger: there is no file .*costs\.db"):
        costs(ledger=f"sqlite:///{tmp_path / 'costs.db'}")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where the service's embedded database is; the server's user can reach it."""
    folder = home_folder() / f"tests-{secrets.token_hex(4)}"
    (tmp_path / "settings.toml").write_text(f'data_dir = "{folder}"\n')
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("command", [costs, export, reconcile])
def test_a_report_makes_no_database(
    command: Callable[..., int], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("ANTHROPIC_ADMIN_KEY", "sk-ant-admin-of-nobody")
    said = rf"no ledger yet: no database is in {place}, .* --ledger sqlite:///FILE"
    with pytest.raises(ConfigError, match=said):
        command(settings=tmp_path / "settings.toml")
    assert not place.exists()


def test_the_embedded_database_that_is_there_is_reported_on(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)

    async def spend() -> None:
        database = await open_database(None, folder=place)
        await _spend(database.dsn)
        await database.stop()

    asyncio.run(spend())
    assert costs(settings=tmp_path / "settings.toml", json=True) == 0
    assert json.loads(capsys.readouterr().out)["total_usd"] == "0.000005"


def test_a_database_of_others_is_no_ledger_and_gets_no_tables(postgres_url: str) -> None:
    with pytest.raises(ConfigError, match="is no ledger of llm-integrations"):
        costs(ledger=postgres_url)
    with psycopg.connect(postgres_url) as connection:
        found = connection.execute("SELECT FROM pg_namespace WHERE nspname = 'llm_integrations'")
        assert found.fetchall() == []
    missing = urlsplit(postgres_url)._replace(path="/nowhere").geturl()
    with pytest.raises(ConfigError, match=r'database "nowhere" does not exist \(check --ledger\)'):
        costs(ledger=missing)


def test_an_older_ledger_on_a_server_is_left_to_its_own_program(postgres_url: str) -> None:
    asyncio.run(_spend(postgres_url))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("UPDATE llm_integrations.schema_version SET version = version - 1")
    with pytest.raises(ConfigError, match="a report changes nothing"):
        costs(ledger=postgres_url)


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
