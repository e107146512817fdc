"""The ledger beside Anthropic's reports, told by the simulator from a bill that is not ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest

from llm_integrations._core.admission import Actual, Ask
from llm_integrations.anthropic import AnthropicClient, AnthropicConfig, Message, MessageRequest
from llm_integrations.anthropic.reconcile import Reconciliation, compare, reconcile
from llm_integrations.anthropic.usage_reports import ReportedCost
from llm_integrations.cli import costs
from llm_integrations.errors import AnswerMalformed, AuthFailed, ConfigError
from llm_integrations.governance import Governor
from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic.behaviour import Behaviour
from llm_integrations.simulators.faults import Reset, StatusError

ADMIN = "sk-ant-admin01-test"
MODELS = ("claude-haiku-4-5", "claude-opus-5")


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    async with ClaudeSimulator(latency_ms=(0, 0)) as simulator:
        yield simulator


@pytest.fixture
async def governor() -> AsyncIterator[Governor]:
    async with Governor.open("memory:") as opened:
        yield opened


def _client(sim: ClaudeSimulator, governor: Governor | None = None) -> AnthropicClient:
    config = AnthropicConfig(api_key="test", base_url=sim.base_url, max_retries=0)
    return AnthropicClient(config, governor=governor)


def _admin(sim: ClaudeSimulator) -> AnthropicClient:
    config = AnthropicConfig(api_key=ADMIN, base_url=sim.base_url, auth_scheme="x-api-key")
    return AnthropicClient(config)


async def _ask_all(sim: ClaudeSimulator, governor: Governor | None) -> None:
    async with _client(sim, governor) as client:
        for model in MODELS:
            await client.complete("Say something.", model=model, max_tokens=200)


async def _compare(
    sim: ClaudeSimulator, governor: Governor, *, later: timedelta = timedelta(0), days: int = 1
) -> Reconciliation:
    async with _admin(sim) as admin:
        now = datetime.now(UTC)
        since = now - timedelta(days=days)
        return await reconcile(governor, admin, since=since, until=now, now=now + later)


async def _batch(sim: ClaudeSimulator, governor: Governor, *, read: bool = True) -> None:
    message = [Message.user("Say something.")]
    requests = {
        model: MessageRequest(model=model, max_tokens=200, messages=message) for model in MODELS
    }
    refused = [Message.user("[[refuse]]")]  # which costs nothing
    requests["refused"] = MessageRequest(model=MODELS[0], max_tokens=200, messages=refused)
    async with _client(sim, governor) as client:
        batch = await client.batches.create(requests)
        await client.batches.wait(batch.id, poll_s=0.02)
        if read:
            await client.batches.results(batch.id)


def _causes(found: Reconciliation) -> set[str]:
    return {one.cause for one in found.differences}


async def test_what_went_through_the_ledger_is_what_anthropic_reports(
    sim: ClaudeSimulator, governor: Governor
) -> None:
    await _ask_all(sim, governor)
    found = await _compare(sim, governor)
    assert found.differences == ()
    assert found.is_explained
    # input and output of two models, and the cost of the day (of two, at midnight)
    assert found.equal >= 5
    assert found.ledger_pusd == found.anthropic_pusd == sim.invoice_pusd() > 0


async def test_batches_are_what_anthropic_reports_model_by_model(
    sim: ClaudeSimulator, governor: Governor
) -> None:
    await _batch(sim, governor)
    found = await _compare(sim, governor)
    assert found.differences == ()
    assert found.equal >= 5
    assert found.ledger_pusd == found.anthropic_pusd == sim.invoice_pusd() > 0


async def test_a_batch_that_nobody_read_is_of_unknown_outcome(
    sim: ClaudeSimulator, governor: Governor
) -> None:
    await _batch(sim, governor, read=False)
    found = await _compare(sim, governor)
    assert _causes(found) == {"unknown"}
    assert found.unknown_pusd >= found.anthropic_pusd == sim.invoice_pusd() > 0


async def test_a_batch_read_days_later_is_told_from_calls_past_the_ledger(
    sim: ClaudeSimulator, governor: Governor
) -> None:
    await _batch(sim, governor)
    now = datetime.now(UTC)
    async with _admin(sim) as admin:
        since, until = now - timedelta(days=2), now + timedelta(days=1)
        usage = await admin.load_usage(since, until)
        costs_told = await admin.load_costs(since, until)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    entries = [
        msgspec.structs.replace(
            entry, created_at=midnight - timedelta(days=2), settled_at=now + timedelta(days=2)
        )
        for entry in await governor.ledger.entries()
    ]
    found = compare(
        entries,
        usage,
        costs_told,
        since=midnight - timedelta(days=2),
        until=midnight + timedelta(days=3),
        now=now + timedelta(days=9),
    )
    assert _causes(found) == {"midnight"}


async def test_a_report_of_many_days_comes_in_pages(
    sim: ClaudeSimulator, governor: Governor
) -> None:
    await _ask_all(sim, governor)
    found = await _compare(sim, governor, days=70)
    assert found.differences == ()
    assert found.ledger_pusd == found.anthropic_pusd > 0
    pages = [request for request in sim.requests if "page" in request.query]
    assert len(pages) == 4  # 71 days are two further pages of each report


async def test_calls_past_the_ledger_are_named_as_such(
    sim: ClaudeSimulator, governor: Governor
) -> None:
    await _ask_all(sim, governor)
    await _ask_all(sim, None)
    found = await _compare(sim, governor)
    assert _causes(found) == {"not in the ledger"}
    assert found.is_explained
    assert found.anthropic_pusd == sim.invoice_pusd() > found.ledger_pusd
    assert {one.model for one in found.differences} == {
        "",
        *(charge.model for charge in sim.charges),
    }


async def test_an_attempt_of_unknown_outcome_explains_what_was_charged_for_it(
    sim: ClaudeSimulator, governor: Governor
) -> None:
    sim.fail_next(Reset(after_work=True))
    async with _client(sim, governor) as client:
        with pytest.raises(Exception, match="connection"):
            await client.complete("Say something.", model=MODELS[0], max_tokens=200)
    found = await _compare(sim, governor)
    assert sim.invoice_pusd() > 0
    assert found.ledger_pusd == 0
    assert found.unknown_pusd >= found.anthropic_pusd == sim.invoice_pusd()
    assert _causes(found) == {"unknown"}
    assert all(one.attempts == 1 for one in found.differences)


async def test_a_wrong_price_is_found_and_said(sim: ClaudeSimulator, governor: Governor) -> None:
    await _ask_all(sim, governor)
    ask = Ask(group="haiku", model=MODELS[0], hold_pusd=10**9)
    charge = sim.charges[0]
    wrong = Actual(
        state="settled",
        cost_pusd=charge.pusd * 11 // 10,
        model=charge.model,
        raw=msgspec.json.encode(charge.usage),
    )
    await governor.settle(await governor.admit(ask), wrong)
    sim.charges.append(charge)  # the same once more, at the right price
    found = await _compare(sim, governor)
    assert [(one.what, one.cause) for one in found.differences] == [("cost", "prices")]
    assert found.ledger_pusd - found.anthropic_pusd == charge.pusd * 11 // 10 - charge.pusd


async def test_a_report_that_lags_is_no_alarm_until_a_day_later(governor: Governor) -> None:
    async with ClaudeSimulator(
        latency_ms=(0, 0), behaviour=Behaviour(report_lag_s=3_600)
    ) as lagging:
        await _ask_all(lagging, governor)
        found = await _compare(lagging, governor)
        assert _causes(found) == {"not yet reported"}
        assert found.is_explained
        found = await _compare(lagging, governor, later=timedelta(days=3))
        assert _causes(found) == {""}
        assert not found.is_explained


async def test_only_an_admin_key_is_taken(sim: ClaudeSimulator) -> None:
    now = datetime.now(UTC)
    async with _client(sim) as client:
        with pytest.raises(AuthFailed):
            await client.load_costs(now - timedelta(days=1), now)


async def test_an_amount_that_is_none_is_refused_whole(sim: ClaudeSimulator) -> None:
    now = datetime.now(UTC)
    async with _admin(sim) as admin:
        for amount, currency in (("NaN", "USD"), ("1e3", "USD"), ("", "USD"), ("1.5", "EUR")):
            row = {"amount": amount, "currency": currency, "model": None}
            bucket = {"starting_at": "2026-11-01T00:00:00Z", "results": [row]}
            body = json.dumps({"data": [bucket], "has_more": False}).encode()
            sim.fail_next(StatusError(status=200, body=body, content_type="application/json"))
            with pytest.raises(AnswerMalformed):
                await admin.load_costs(now - timedelta(days=1), now)


async def test_amounts_are_cents(sim: ClaudeSimulator, governor: Governor) -> None:
    await _ask_all(sim, governor)
    now = datetime.now(UTC)
    async with _admin(sim) as admin:
        rows: list[ReportedCost] = await admin.load_costs(now - timedelta(days=1), now)
    assert sum(row.pusd for row in rows) == sim.invoice_pusd()
    assert all(row.step_pusd >= 1 for row in rows)


@pytest.mark.parametrize("is_service", [True, False])
def test_the_command_says_what_is_not_equal(
    postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, is_service: bool
) -> None:
    path = tmp_path / "settings.toml"
    place = f'database_url = "{postgres_url}"\n' if is_service else ""
    ledger = None if is_service else f"sqlite:///{tmp_path / 'costs.db'}"
    path.write_text(place)
    with pytest.raises(ConfigError, match="ANTHROPIC_ADMIN_KEY"):
        costs.reconcile(ledger=ledger, settings=path)

    async def spend(url: str) -> str:
        async with ClaudeSimulator(latency_ms=(0, 0)) as sim, Governor.open(url) as governor:
            await _ask_all(sim, governor)
            await _ask_all(sim, None)
            text = f'{place}[claude]\nadmin_key = "{ADMIN}"\nbase_url = "{sim.base_url}"\n'
            path.write_text(text)
            ask = partial(costs.reconcile, ledger=ledger, settings=path)
            assert await asyncio.to_thread(ask, json=True) == 0
            assert await asyncio.to_thread(ask) == 0
        return str(sim.invoice_pusd())

    asyncio.run(spend(ledger or postgres_url))
    out = capsys.readouterr().out
    told, end = json.JSONDecoder().raw_decode(out)
    assert told["is_explained"]
    assert {one["cause"] for one in told["differences"]} == {"not in the ledger"}
    table = out[end:]
    assert "not in the ledger" in table
    assert ADMIN not in out


async def test_the_command_says_which_key_is_not_taken(tmp_path: Path) -> None:
    ledger, path = f"sqlite:///{tmp_path / 'costs.db'}", tmp_path / "settings.toml"
    async with ClaudeSimulator(latency_ms=(0, 0)) as sim, Governor.open(ledger):
        path.write_text(f'[claude]\nadmin_key = "sk-ant-api"\nbase_url = "{sim.base_url}"\n')
        ask = partial(costs.reconcile, ledger=ledger, settings=path)
        with pytest.raises(ConfigError, match=r"401 .* check ANTHROPIC_ADMIN_KEY \(setting claude"):
            await asyncio.to_thread(ask)
