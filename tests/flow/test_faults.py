"""Every fault of the kit, met by our own clients: what they raise, send again and write down."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable

import pytest

from llm_integrations.anthropic import AnthropicClient, AnthropicConfig, Message, MessageRequest
from llm_integrations.errors import (
    AnswerMalformed,
    AuthFailed,
    ConnectionBroken,
    IntegrationError,
    NotAllowed,
    NotFound,
    Overloaded,
    RateLimited,
    Rejected,
    ServerFailed,
    SpendLimitReached,
    StreamInterrupted,
    TimedOut,
)
from llm_integrations.governance import Governor
from llm_integrations.jira import BasicAuth, JiraClient, JiraConfig
from llm_integrations.simulators import ClaudeSimulator, JiraSimulator
from llm_integrations.simulators.anthropic import errors as claude_errors
from llm_integrations.simulators.faults import (
    Cut,
    Dribble,
    Fault,
    FaultPlan,
    HalfClose,
    Reset,
    Slow,
    html_error,
    login_page,
    redirect_to_login,
)
from llm_integrations.simulators.jira import errors as jira_errors
from tests.wire import HandClock

MODEL = "claude-haiku-5-5"
TIMEOUT_S = 0.3
LATE = Slow(delay_s=30)
LORIS = Dribble(bytes_each=1, every_s=0.2)


def ask(max_tokens: int = 50) -> MessageRequest:
    return MessageRequest(model=MODEL, max_tokens=max_tokens, messages=[Message.user("Hello")])


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    async with ClaudeSimulator(latency_ms=(0, 0)) as simulator:
        yield simulator


@pytest.fixture
async def site() -> AsyncIterator[JiraSimulator]:
    async with JiraSimulator(latency_ms=(0, 0)) as simulator:
        yield simulator


# Claude. One fault, two attempts at most: what becomes of the call and what the ledger says.

SETTLED = {"settled": 1}
AGAIN_UNKNOWN = {"unknown": 1, "settled": 1}
AGAIN_REFUSED = {"refused": 1, "settled": 1}
REFUSED = {"refused": 1}
CLAUDE: dict[str, tuple[Fault, type[IntegrationError] | None, dict[str, int]]] = {
    "late": (Slow(delay_s=0.02, up_to_s=0.05, seed=7), None, SETTLED),
    "too late": (LATE, None, AGAIN_UNKNOWN),
    "dribbled": (Dribble(bytes_each=64, every_s=0.001), None, SETTLED),
    "slow loris": (LORIS, None, AGAIN_UNKNOWN),
    "reset": (Reset(), None, AGAIN_UNKNOWN),
    "reset after work": (Reset(after_work=True), None, AGAIN_UNKNOWN),
    "half closed": (HalfClose(), None, AGAIN_UNKNOWN),
    "cut": (Cut(), None, AGAIN_UNKNOWN),
    "cut, half closed": (Cut(ending="half_close"), None, AGAIN_UNKNOWN),
    "cut, reset": (Cut(ending="reset"), None, AGAIN_UNKNOWN),
    "429 bucket": (claude_errors.rate_limited(1), None, AGAIN_REFUSED),
    "429 requests": (claude_errors.rate_limited(1, limiter="requests"), None, AGAIN_REFUSED),
    "429 output": (claude_errors.rate_limited(1, limiter="output-tokens"), None, AGAIN_REFUSED),
    "429 no hint": (claude_errors.organization_rate_limited(), None, AGAIN_REFUSED),
    "429 ramp": (claude_errors.ramp_limited(1), None, AGAIN_REFUSED),
    "429 too long": (claude_errors.ramp_limited(600), RateLimited, REFUSED),
    "429 tier cap": (claude_errors.spend_limit(), SpendLimitReached, REFUSED),
    "429 contract": (claude_errors.contract_spend_limit(), SpendLimitReached, REFUSED),
    "400 own cap": (claude_errors.own_spend_limit(), Rejected, REFUSED),
    "401": (claude_errors.key_expired(), AuthFailed, REFUSED),
    "403": (claude_errors.permission_denied(), NotAllowed, REFUSED),
    "404": (claude_errors.not_found(), NotFound, REFUSED),
    "413 page": (claude_errors.too_large(), Rejected, REFUSED),
    "500": (claude_errors.server_failed(), None, AGAIN_REFUSED),
    "502 page": (html_error(502, "Bad Gateway"), None, AGAIN_REFUSED),
    "503": (claude_errors.service_unavailable(), None, AGAIN_REFUSED),
    "504": (claude_errors.gateway_timeout(), None, AGAIN_REFUSED),
    "529": (claude_errors.overloaded(), None, AGAIN_REFUSED),
    "200 login page": (login_page(), AnswerMalformed, {"unknown": 1}),
    "302 to login": (redirect_to_login(), Rejected, REFUSED),
}


async def states_of(governor: Governor) -> dict[str, int]:
    return dict(Counter([entry.state async for entry in governor.ledger.iter_entries()]))


@pytest.mark.parametrize("case", CLAUDE)
async def test_a_fault_of_claude_is_ridden_out_or_raised_and_each_attempt_is_in_the_ledger(
    case: str, sim: ClaudeSimulator
) -> None:
    fault, error, rows = CLAUDE[case]
    config = AnthropicConfig(
        api_key="k", base_url=sim.base_url, timeout_s=TIMEOUT_S, content_timeout_s=TIMEOUT_S
    )
    sim.fail_next(fault)
    async with (
        Governor.open("memory:") as governor,
        AnthropicClient(config, governor=governor, clock=HandClock()) as claude,
    ):
        if error is None:
            assert (await claude.send_message(ask())).text
        else:
            with pytest.raises(error) as caught:
                await claude.send_message(ask())
            assert type(caught.value) is error
        assert await states_of(governor) == rows


STREAMS: dict[str, tuple[Fault, dict[str, int]]] = {
    "cut": (Cut(after_events=6), {"partial": 1}),
    "cut, half closed": (Cut(after_events=6, ending="half_close"), {"partial": 1}),
    "cut, reset": (Cut(after_events=6, ending="reset"), {"partial": 1}),
    "silence": (claude_errors.Silence(after_events=6), {"partial": 1}),
    "pings only": (claude_errors.PingsOnly(after_events=6), {"partial": 1}),
    "error event": (claude_errors.StreamError(after_events=6), {"partial": 1}),
    "slow loris": (LORIS, {"unknown": 1}),
}


@pytest.mark.parametrize("case", STREAMS)
async def test_a_stream_that_somebody_has_seen_is_never_begun_again(
    case: str, sim: ClaudeSimulator
) -> None:
    fault, rows = STREAMS[case]
    config = AnthropicConfig(
        api_key="k", base_url=sim.base_url, timeout_s=0.6, content_timeout_s=0.6, max_retries=0
    )
    sim.fail_next(fault)
    async with (
        Governor.open("memory:") as governor,
        AnthropicClient(config, governor=governor) as claude,
    ):
        with pytest.raises((StreamInterrupted, Overloaded, TimedOut)):
            async for _ in claude.stream_complete("Hello", model=MODEL, max_tokens=50):
                pass
        assert await states_of(governor) == rows
    assert len(sim.requests) == 1


# Jira. What becomes of a read, which may be sent again, and of a comment, which may not.

Ends = type[IntegrationError] | None
JIRA: dict[str, tuple[Fault, Ends, Ends]] = {
    "late": (Slow(delay_s=0.02, up_to_s=0.05, seed=7), None, None),
    "too late": (LATE, None, TimedOut),
    "dribbled": (Dribble(bytes_each=512, every_s=0.001), None, None),
    "slow loris": (LORIS, None, TimedOut),
    "reset": (Reset(), None, ConnectionBroken),
    "reset after work": (Reset(after_work=True), None, ConnectionBroken),
    "half closed": (HalfClose(), None, ConnectionBroken),
    "cut": (Cut(), None, ConnectionBroken),
    "cut, half closed": (Cut(ending="half_close"), None, ConnectionBroken),
    "cut, reset": (Cut(ending="reset"), None, ConnectionBroken),
    **{
        f"429 {reason}": (jira_errors.rate_limited(reason), None, None)
        for reason in jira_errors.REASONS
    },
    "429 quota, an hour": (
        jira_errors.rate_limited(jira_errors.TENANT_QUOTA, 3600),
        RateLimited,
        RateLimited,
    ),
    "429 of a gateway": (jira_errors.gateway_limited(), None, None),
    "429 page": (jira_errors.page_limited(), None, None),
    "429 of data center": (jira_errors.data_center_limited(), None, None),
    "401": (jira_errors.failure(401, "no"), AuthFailed, AuthFailed),
    "403": (jira_errors.failure(403, "no"), NotAllowed, NotAllowed),
    "404": (jira_errors.failure(404, "no"), NotFound, NotFound),
    "500": (jira_errors.failure(500, "no"), None, ServerFailed),
    "502 page": (html_error(502, "Bad Gateway"), None, ServerFailed),
    "503": (jira_errors.failure(503, "no"), None, Overloaded),
    "504 page": (html_error(504, "Gateway Timeout"), None, ServerFailed),
    "200 login page": (login_page(), AnswerMalformed, AnswerMalformed),
    "302 to login": (redirect_to_login(), AuthFailed, AuthFailed),
}


@pytest.mark.parametrize("case", JIRA)
async def test_a_fault_of_jira_is_ridden_out_by_a_read_and_never_repeats_a_comment(
    case: str, site: JiraSimulator
) -> None:
    fault, of_read, of_comment = JIRA[case]
    config = JiraConfig(site.base_url, BasicAuth("bot@example.com", "token"), timeout_s=TIMEOUT_S)
    async with JiraClient(config, clock=HandClock()) as jira:
        await jira.server_info()
        site.fail_next(fault, path="/issue/DEMO-1$")
        assert await end_of(jira.get_issue("DEMO-1")) is of_read
    async with JiraClient(config, clock=HandClock()) as jira:
        await jira.server_info()
        site.fail_next(fault, method="POST", path="/comment$")
        assert await end_of(jira.add_comment("DEMO-1", "once")) is of_comment
    assert len(site.comments("DEMO-1")) <= 1


async def end_of(call: Awaitable[object]) -> Ends:
    """Return the type that a call raised, None when it succeeded."""
    try:
        await call
    except IntegrationError as error:
        return type(error)
    return None


# The plan itself


def test_a_drawn_delay_is_the_same_for_the_same_seed_and_its_seed_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def draws(seed: int) -> list[float]:
        plan: FaultPlan[str] = FaultPlan()
        plan.add(Slow(delay_s=1, up_to_s=2, seed=seed), times=50)
        taken = [plan.take("request") for _ in range(50)]
        assert plan.take("request") is None
        return [fault.delay_s for fault in taken if isinstance(fault, Slow)]

    with caplog.at_level(logging.INFO, "llm_integrations.simulators"):
        first = draws(7)
    assert "seed=7" in caplog.text
    assert first == draws(7)
    assert first != draws(8)
    assert len(set(first)) == 50
    assert all(1 <= delay_s <= 2 for delay_s in first)
