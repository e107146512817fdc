"""What an outage costs: the retry quota of a client, counted at the server."""

from __future__ import annotations

import asyncio

import pytest

from llm_integrations.anthropic import AnthropicClient, AnthropicConfig, Message, MessageRequest
from llm_integrations.errors import (
    APIError,
    ConnectFailed,
    ConnectionBroken,
    IntegrationError,
    RateLimited,
)
from llm_integrations.jira import BasicAuth, JiraClient, JiraConfig
from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic.errors import overloaded, rate_limited
from tests.wire import HandClock, Handler, answer, replies, serving

CALLS = 1_000
MOST_REQUESTS = 1_100
MODEL = "claude-haiku-5-5"
OVERLOADED = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
NOTE = "retry quota is empty"


class Counted:
    """A handler that counts, and an admission that counts."""

    def __init__(self, handler: Handler | None = None) -> None:
        self._handler = handler
        self.requests = self.admitted = self.booked = 0

    async def __call__(self, number: int, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        assert self._handler is not None
        await self._handler(number, writer)

    async def admit(self, _: object) -> object:
        self.admitted += 1
        return None

    async def settle(self, *_: object) -> None:
        self.booked += 1

    async def cancel(self, _: object) -> None:
        self.booked += 1

    def observe(self, *_: object) -> None:
        """The limits do not matter here."""


def ask(max_tokens: int = 50) -> MessageRequest:
    return MessageRequest(model=MODEL, max_tokens=max_tokens, messages=[Message.user("Hello")])


def claude(base_url: str, counted: Counted | None = None) -> AnthropicClient:
    config = AnthropicConfig(api_key="k", base_url=base_url, rate_limit_per_minute=None)
    return AnthropicClient(config, governor=counted, clock=HandClock())


async def offer(client: AnthropicClient, request: MessageRequest) -> list[IntegrationError]:
    """Make the calls, 16 at a time, and return how they failed."""
    errors: list[IntegrationError] = []
    left = iter(range(CALLS))

    async def work() -> None:
        for _ in left:
            with pytest.raises(IntegrationError) as caught:
                await client.send_message(request)
            errors.append(caught.value)

    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(work())
    return errors


@pytest.mark.parametrize(
    ("reply", "kind", "max_tokens"),
    [
        (answer(529, OVERLOADED, "x-should-retry: true"), APIError, 50),
        (answer(503, b"<html>", "retry-after: 1"), APIError, 9_000),
        (b"", ConnectionBroken, 50),
    ],
    ids=["529", "503 to a stream", "reset"],
)
async def test_an_outage_costs_at_most_a_tenth_more_requests_than_were_asked_for(
    reply: bytes, kind: type[Exception], max_tokens: int
) -> None:
    counted = Counted(replies(reply))
    async with serving(counted) as base_url, claude(base_url, counted) as client:
        errors = await offer(client, ask(max_tokens))
    assert len(errors) == CALLS
    assert CALLS < counted.requests <= MOST_REQUESTS
    assert counted.admitted == counted.booked == counted.requests
    assert all(isinstance(error, kind) for error in errors)
    assert any(NOTE in note for note in errors[-1].__notes__)


async def test_a_server_that_is_gone_is_not_knocked_at_more_often_either() -> None:
    counted = Counted()
    async with serving(replies(b"")) as base_url:
        pass
    async with claude(base_url, counted) as client:
        errors = await offer(client, ask())
    assert all(isinstance(error, ConnectFailed) for error in errors)
    assert CALLS < counted.admitted <= MOST_REQUESTS
    assert counted.booked == counted.admitted


async def test_the_jira_client_has_the_same_quota() -> None:
    counted = Counted(replies(answer(503, b"")))
    async with serving(counted) as base_url:
        config = JiraConfig(
            base_url,
            BasicAuth("bot@example.com", "token"),
            deployment="cloud",
            rate_limit_per_minute=10**6,
        )
        async with JiraClient(config, clock=HandClock()) as client:
            for _ in range(CALLS):
                with pytest.raises(IntegrationError):
                    await client.get_issue("ABC-1")
    assert CALLS < counted.requests <= MOST_REQUESTS


async def test_single_failures_never_use_up_the_quota() -> None:
    async with ClaudeSimulator(latency_ms=(0, 0)) as sim, claude(sim.base_url) as client:
        for _ in range(60):
            sim.fail_next(overloaded())
            assert (await client.send_message(ask())).text
        assert len(sim.requests) == 120


async def test_a_429_that_names_its_wait_does_not_need_the_quota() -> None:
    async with ClaudeSimulator(latency_ms=(0, 0)) as sim, claude(sim.base_url) as client:
        for _ in range(12):
            sim.fail_next(rate_limited(1), times=4)
            with pytest.raises(RateLimited) as caught:
                await client.send_message(ask())
            assert not hasattr(caught.value, "__notes__")
        assert len(sim.requests) == 48
