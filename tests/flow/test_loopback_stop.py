"""What a loopback server logs when requests end in another way than by an answer."""

import asyncio

import aiohttp
import pytest

from llm_integrations.simulators import ClaudeSimulator, JiraSimulator
from llm_integrations.simulators.faults import Dribble, Fault, Slow
from llm_integrations.simulators.loopback import LoopbackServer, Receive, Scope, Send

HEADERS = {"x-api-key": "k", "authorization": "Basic YTpi", "anthropic-version": "2026-10-21"}


@pytest.mark.parametrize("fault", [Slow(delay_s=60), Dribble(every_s=60)])
@pytest.mark.parametrize(
    ("kind", "path"),
    [(ClaudeSimulator, "/v1/models"), (JiraSimulator, "/rest/api/3/serverInfo")],
)
async def test_a_simulator_that_stops_says_nothing_of_requests_under_way(
    kind: type[ClaudeSimulator | JiraSimulator],
    path: str,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
) -> None:
    simulator = kind()

    async def ask(http: aiohttp.ClientSession) -> None:
        async with http.get(simulator.base_url + path, headers=HEADERS) as answer:
            await answer.read()

    async with aiohttp.ClientSession() as http, asyncio.timeout(20):
        async with simulator:
            simulator.fail_next(fault)
            asking = asyncio.create_task(ask(http))
            while not simulator.requests:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        with pytest.raises(aiohttp.ClientError):
            await asking
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


@pytest.mark.parametrize("failure", [LookupError, asyncio.CancelledError])
async def test_an_app_that_fails_is_logged(
    failure: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise failure("on its own")

    server = LoopbackServer(fail)
    await server.start()
    try:
        async with aiohttp.ClientSession() as http, http.get(server.base_url) as answer:
            assert answer.status == 500
    finally:
        await server.stop()
    assert "on its own" in caplog.text
