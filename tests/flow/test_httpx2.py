"""Both clients on a user's own `httpx2.AsyncClient`, over real sockets.

The rules of the call loop run on this transport in `test_call`; here is what is particular to a
client that belongs to somebody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from llm_integrations import anthropic, jira
from llm_integrations.anthropic import AnthropicClient, AnthropicConfig, Message, MessageRequest
from llm_integrations.errors import (
    AuthFailed,
    ConfigError,
    ConnectFailed,
    NotFound,
    Overloaded,
    StreamInterrupted,
)
from llm_integrations.jira import BasicAuth, Httpx2Transport, JiraClient, JiraConfig
from llm_integrations.simulators import ClaudeSimulator, JiraSimulator
from llm_integrations.simulators.faults import Cut, StatusError
from tests.wire import chunked, serving

REQUEST = MessageRequest(
    model="claude-haiku-5-5", max_tokens=500, messages=[Message.user("Write a long poem.")]
)


@pytest.fixture
async def own() -> AsyncIterator[httpx2.AsyncClient]:
    """A user's client with one connection: one that is not given back stops the next request."""
    limits = httpx2.Limits(max_connections=1)
    async with httpx2.AsyncClient(limits=limits, trust_env=False) as client:
        yield client


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    async with ClaudeSimulator(latency_ms=(0, 0)) as running:
        yield running


def claude(base_url: str, own: httpx2.AsyncClient) -> AnthropicClient:
    config = AnthropicConfig(api_key="key", base_url=base_url, timeout_s=5, max_retries=0)
    return AnthropicClient(config, transport=Httpx2Transport(own))


def site(base_url: str, own: httpx2.AsyncClient) -> JiraClient:
    config = JiraConfig(base_url, BasicAuth("bot@example.com", "token"), max_retries=0)
    return JiraClient(config, transport=Httpx2Transport(own))


async def test_the_claude_client_sends_and_streams(
    sim: ClaudeSimulator, own: httpx2.AsyncClient
) -> None:
    client = claude(sim.base_url, own)
    assert (await client.send_message(REQUEST)).text
    async with client.stream_message(REQUEST) as stream:
        pieces = [text async for text in stream.text()]
        assert "".join(pieces) == (await stream.message()).text
    assert await client.count_tokens(REQUEST) > 0


async def test_the_jira_client_reads_and_writes(own: httpx2.AsyncClient) -> None:
    async with JiraSimulator(latency_ms=(0, 0)) as sim:
        client = site(sim.base_url, own)
        issue = await client.create_issue(
            jira.CreateIssueRequest(project="DEMO", summary="Über httpx2", issue_type="Task")
        )
        await client.add_comment(issue.key, "Hello")
        assert (await client.get_issue(issue.key)).fields.summary == "Über httpx2"
        with pytest.raises(NotFound):
            await client.get_issue("DEMO-99999")
        await client.delete_issue(issue.key)


async def test_an_address_arrives_as_it_was_encoded(
    sim: ClaudeSimulator, own: httpx2.AsyncClient
) -> None:
    with pytest.raises(NotFound):
        await claude(sim.base_url, own).get_model("of %2F?x")
    assert sim.requests[-1].path == "/v1/models/of %2F?x"


async def test_a_stream_that_is_left_early_gives_its_connection_back(
    sim: ClaudeSimulator, own: httpx2.AsyncClient
) -> None:
    client = claude(sim.base_url, own)
    async with asyncio.timeout(10):
        for _ in range(3):
            async with client.stream_message(REQUEST) as stream:
                async for _ in stream.text():
                    break
        assert (await client.send_message(REQUEST)).text
    assert client.get_cost_stats().total.attempts == 4


async def test_a_stream_whose_reader_is_cancelled_gives_its_connection_back(
    sim: ClaudeSimulator, own: httpx2.AsyncClient
) -> None:
    client = claude(sim.base_url, own)
    reading = asyncio.Event()

    async def read() -> None:
        async with client.stream_message(REQUEST) as stream:
            async for _ in stream.text():
                reading.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(read())
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        assert (await client.send_message(REQUEST)).text


async def test_a_stream_may_be_closed_while_another_task_reads_it(own: httpx2.AsyncClient) -> None:
    begun = b'data: {"type":"message_start","message":{"content":[],"usage":{}}}\n\n'
    text = b'{"type":"text_delta","text":"Hi"}'
    delta = b'data: {"type":"content_block_delta","index":0,"delta":%s}\n\n' % text

    async def stall(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(begun + delta, end=False))
        await writer.drain()
        await asyncio.sleep(30)

    async with serving(stall) as base_url:
        client = claude(base_url, own)
        for _ in range(2):  # the second one needs the connection of the first
            stream = client.stream_message(REQUEST)
            async with stream:
                reading = asyncio.create_task(stream.message())
                await asyncio.sleep(0.05)
            with pytest.raises(StreamInterrupted):
                await reading


async def test_refusals_and_cuts_are_the_same_errors(
    sim: ClaudeSimulator, own: httpx2.AsyncClient
) -> None:
    client = claude(sim.base_url, own)
    sim.fail_next(StatusError(status=529))
    with pytest.raises(Overloaded):
        await client.send_message(REQUEST)
    sim.fail_next(Cut(after_events=6))
    async with client.stream_message(REQUEST) as stream:
        with pytest.raises(StreamInterrupted) as caught:
            await stream.message()
    assert caught.value.partial is not None
    assert (await client.send_message(REQUEST)).text


async def test_a_port_where_nobody_listens_is_no_connection(own: httpx2.AsyncClient) -> None:
    with pytest.raises(ConnectFailed) as caught:
        await site("http://127.0.0.1:1", own).myself()
    assert not caught.value.may_have_arrived


async def test_the_users_own_credentials_never_replace_ours() -> None:
    async with (
        ClaudeSimulator(latency_ms=(0, 0), credentials={"key"}) as sim,
        httpx2.AsyncClient(auth=("somebody", "else"), trust_env=False) as own,
    ):
        assert (await claude(sim.base_url, own).send_message(REQUEST)).text
        config = AnthropicConfig(api_key="other", base_url=sim.base_url)
        client = AnthropicClient(config, transport=Httpx2Transport(own))
        with pytest.raises(AuthFailed):
            await client.check()


async def test_the_client_stays_open_for_its_owner(
    sim: ClaudeSimulator, own: httpx2.AsyncClient
) -> None:
    async with claude(sim.base_url, own) as client:
        await client.check()
    assert not own.is_closed


async def test_a_client_of_another_library_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"httpx2\.AsyncClient, not builtins"):
        Httpx2Transport(object())  # type: ignore[arg-type]


def test_both_halves_offer_the_same_transports() -> None:
    assert anthropic.Httpx2Transport is jira.Httpx2Transport
    assert anthropic.AiohttpTransport is jira.AiohttpTransport
