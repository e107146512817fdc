"""The gateway between clients and the Claude simulator, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import shutil
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import anthropic
import pytest

from llm_integrations._core.clock import SystemClock
from llm_integrations._core.config import Secret
from llm_integrations.anthropic import AiohttpTransport
from llm_integrations.cli.program import run
from llm_integrations.errors import ConfigError
from llm_integrations.governance import Budget, Entry, Governor, Limit
from llm_integrations.service.gateway import Gateway, GatewayOptions
from llm_integrations.service.listener import listening
from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic import errors
from llm_integrations.simulators.anthropic.behaviour import Behaviour
from llm_integrations.simulators.faults import Cut, Dribble, Fault, Reset, Slow
from tests.clocks import BeatClock
from tests.money.auditor import audit
from tests.money.leaver import CAP, GOING_ON, TAGS, leave_by_sdk, leave_streams
from tests.sdk import (
    ASK,
    COUNT,
    FAULTED,
    FAULTS,
    OPERATIONS,
    Json,
    batch_ends,
    batched,
    ended,
    filed,
    outcome,
    simulator,
    stable,
)
from tests.wire import answer, chunked, replies, serving

PAGE: Final = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")
BODY: Final = json.dumps(ASK).encode()
TWO: Final[Json] = [{"custom_id": name, "params": ASK} for name in ("a", "b")]


@dataclass(frozen=True)
class Line:
    """A simulator, the gateway to it, and the books between."""

    sim: ClaudeSimulator
    governor: Governor
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def entries(self) -> list[Entry]:
        """Return the rows, the oldest first, once none is on its way."""
        for _ in range(200):
            found = await self.governor.ledger.entries(limit=1_000)
            if all(entry.state != "held" for entry in found):
                return found[::-1]
            await asyncio.sleep(0.01)
        raise AssertionError("an attempt stays held")

    async def charged(self) -> int:
        ledger = self.governor.ledger
        return await ledger.total_pusd() + await ledger.unknown_pusd()


async def paid(governor: Governor) -> list[Entry]:
    """Return the rows of what may cost something."""
    return [entry for entry in await governor.ledger.entries() if entry.hold_pusd]


@asynccontextmanager
async def gateway(
    sim: ClaudeSimulator | None = None,
    *,
    budgets: list[Budget] | None = None,
    limits: list[Limit] | None = None,
    url: str = "memory:",
    goodbye_s: int = 5,
    **options: Json,
) -> AsyncIterator[Line]:
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(sim or simulator())
        governor = await stack.enter_async_context(
            Governor.open(url, budgets=budgets, limits=limits)
        )
        transport = await stack.enter_async_context(AiohttpTransport())
        chosen = GatewayOptions(**{"upstream": sim.base_url, **options})
        served = Gateway(governor, chosen, transport=transport, clock=SystemClock())
        listener = listening(
            served,
            host="127.0.0.1",
            port=0,
            setting="--port",
            goodbye_s=goodbye_s,
            answers_half_closed=False,
        )
        base_url = await stack.enter_async_context(listener)
        yield Line(sim, governor, base_url)


@asynccontextmanager
async def sdk_at(url: str, **more: Json) -> AsyncIterator[anthropic.AsyncAnthropic]:
    http = anthropic.DefaultAsyncHttpxClient(verify=False)
    options = {"api_key": "k", "max_retries": 0, **more}
    async with anthropic.AsyncAnthropic(base_url=url, http_client=http, **options) as sdk:
        yield sdk


async def ask_raw(line: Line, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are; return status, headers and body up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(each.lower().split(": ", 1) for each in lines)
    return int(first.split()[1]), headers, body


def raw(line: str, *headers: str, body: bytes = b"", host: str = "localhost") -> bytes:
    head = [f"{line} HTTP/1.1", f"host: {host}", "connection: close", *headers]
    if body:
        head.append(f"content-length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


MESSAGE: Final = (
    "x-api-key: k",
    "anthropic-version: 2026-10-21",
    "content-type: application/json",
)


def in_frames(whole: bytes) -> bytes:
    """Return zstd in two frames, as a server that flushes may send it."""
    zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    middle = len(whole) // 2
    packed: bytes = zstd.compress(whole[:middle]) + zstd.compress(whole[middle:])
    return packed


# The same bytes and results ---------------------------------------------------------------------

PASSED: Final = [each for each in OPERATIONS if each is not filed]
ANSWERED: Final = [each for each in FAULTS if not isinstance(each, Reset | Cut)]


@pytest.mark.parametrize(
    ("operation", "fault"),
    [(operation, None) for operation in PASSED]
    + [(operation, fault) for operation in FAULTED for fault in ANSWERED],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
async def test_the_sdk_gets_the_same_through_the_gateway_and_the_api_the_same_bytes(
    operation: Callable[[anthropic.AsyncAnthropic], Coroutine[Any, Any, object]],
    fault: Fault | None,
) -> None:
    said: list[tuple[str, list[tuple[str, bytes, dict[str, str]]]]] = []
    for is_between in (False, True):
        async with gateway() as line:
            if fault is not None:
                line.sim.fail_next(fault)
            url = line.url if is_between else line.sim.base_url
            async with sdk_at(url) as sdk:
                result = await outcome(operation(sdk))
            sent = [
                (f"{request.method} {request.path}", request.body, dict(request.headers))
                for request in line.sim.requests
            ]
            said.append((result, sent))
            if is_between and fault is None:
                assert len(await line.entries()) >= len(sent)
                assert await line.charged() == line.sim.invoice_pusd()
    (result, sent), (between_result, between_sent) = said
    assert stable(between_result) == stable(result)
    if operation in {batched, batch_ends}:  # how often it is looked at is a matter of time
        sent, between_sent = sent[:1], between_sent[:1]
    assert len(between_sent) == len(sent)
    for (first, body, headers), (between_first, between_body, between_headers) in zip(
        sent, between_sent, strict=True
    ):
        assert stable(between_first) == stable(first)
        assert between_body == body
        ours = {"host", "connection", "accept-encoding", "x-stainless-timeout"}
        assert {name: each for name, each in between_headers.items() if name not in ours} == {
            name: each for name, each in headers.items() if name not in ours
        }


async def test_the_sync_sdk_is_served_as_the_async_one() -> None:
    def use(url: str) -> list[str]:
        with anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as sdk:
            with sdk.messages.stream(**ASK) as stream:
                events = [repr(event) for event in stream]
            plain = sdk.messages.create(**ASK).content
            return [*events, repr(plain), repr(sdk.messages.count_tokens(**COUNT))]

    async with gateway() as line:
        direct = await asyncio.to_thread(use, line.sim.base_url)
        before = line.sim.invoice_pusd()
        between = await asyncio.to_thread(use, line.url)
        assert [stable(each) for each in between] == [stable(each) for each in direct]
        assert [entry.state for entry in await line.entries()] == ["settled"] * 3
        assert await line.charged() == line.sim.invoice_pusd() - before


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_a_compressed_answer_passes_as_it_is_and_is_read_on_the_way(coding: str) -> None:
    async with simulator() as sim, sdk_at(sim.base_url) as sdk:
        whole = (await sdk.messages.with_raw_response.create(**ASK)).http_response.content
        cost_pusd = sim.invoice_pusd()
    packed = gzip.compress(whole) if coding == "gzip" else in_frames(whole)
    said = ("Content-Type: application/json", f"Content-Encoding: {coding}")
    reply = answer(200, packed, *said)
    async with serving(replies(reply)) as upstream, gateway(upstream=upstream) as line:
        async with sdk_at(line.url) as sdk:
            assert (await sdk.messages.create(**ASK)).content
        request = raw("POST /v1/messages", *MESSAGE, f"accept-encoding: {coding}, br", body=BODY)
        _, headers, body = await ask_raw(line, request)
        assert headers["content-encoding"] == coding
        assert body == packed
        assert [entry.cost_pusd for entry in await line.entries()] == [cost_pusd] * 2


@pytest.mark.parametrize(
    ("said", "scheme"),
    [
        ((), "http"),
        (("x-forwarded-proto: http",), "http"),
        (("x-forwarded-proto: https",), "https"),
        (("x-forwarded-proto: HTTPS, http",), "https"),
        (("x-forwarded-proto: javascript",), "http"),
    ],
)
async def test_results_of_a_batch_are_where_the_proxy_before_the_gateway_is_seen(
    said: tuple[str, ...], scheme: str
) -> None:
    async with gateway(hosts=("llm.example",)) as line:
        async with sdk_at(line.url) as sdk:
            made = await sdk.messages.batches.create(requests=TWO)
            await ended(sdk, made.id)
        path = f"/v1/messages/batches/{made.id}"
        request = raw(f"GET {path}", *MESSAGE, *said, host="llm.example")
        _, _, body = await ask_raw(line, request)
        assert json.loads(body)["results_url"] == f"{scheme}://llm.example{path}/results"
        assert all("x-forwarded-proto" not in seen.headers for seen in line.sim.requests)


async def test_results_of_a_batch_are_fetched_through_the_gateway_and_settle_it() -> None:
    async with gateway() as line, sdk_at(line.url) as sdk:
        made = await sdk.messages.batches.create(requests=[{"custom_id": "a", "params": ASK}])
        await ended(sdk, made.id)
        seen = await sdk.messages.batches.retrieve(made.id)
        assert seen.results_url == f"{line.url}/v1/messages/batches/{made.id}/results"
        listed = [batch async for batch in sdk.messages.batches.list()]
        assert [batch.results_url for batch in listed] == [seen.results_url]
        assert [each.custom_id async for each in await sdk.messages.batches.results(made.id)] == [
            "a"
        ]
        assert await line.charged() == line.sim.invoice_pusd() > 0
        assert (await sdk.messages.batches.delete(made.id)).id == made.id


@pytest.mark.parametrize("look", ["results", "retrieve", "delete"])
async def test_another_gateway_books_a_batch_by_whatever_tells_what_it_cost(
    tmp_path: Path, look: str
) -> None:
    url = f"sqlite:///{tmp_path / 'books.db'}"
    free = {"a": "errored", "b": "errored"} if look == "retrieve" else {}
    behaviour = Behaviour(batch_results=free)
    async with ClaudeSimulator(latency_ms=(0, 0), behaviour=behaviour) as sim:
        async with gateway(upstream=sim.base_url, url=url) as line, sdk_at(line.url) as sdk:
            made = await sdk.messages.batches.create(requests=TWO)
        async with gateway(upstream=sim.base_url, url=url) as line, sdk_at(line.url) as sdk:
            await ended(sdk, made.id)
            if look == "results":
                for _ in range(2):  # the second one changes nothing
                    async for one in await sdk.messages.batches.results(made.id):
                        assert one.result.type == "succeeded"
            elif look == "delete":
                await sdk.messages.batches.delete(made.id)
            (entry,) = await paid(line.governor)
        assert entry.state == ("unknown" if look == "delete" else "settled")
        assert entry.charged_pusd == (entry.hold_pusd if look == "delete" else sim.invoice_pusd())


async def test_a_batch_that_nobody_fetches_is_unknown_when_it_expires_whoever_lives_by_then(
    tmp_path: Path,
) -> None:
    url, now = f"sqlite:///{tmp_path / 'books.db'}", datetime.now(UTC)
    async with ClaudeSimulator(latency_ms=(0, 0)) as sim:
        async with gateway(upstream=sim.base_url, url=url) as line, sdk_at(line.url) as sdk:
            made = await sdk.messages.batches.create(requests=TWO)
            await ended(sdk, made.id)
        for hours, state in ((23, "held"), (25, "unknown")):
            clock = BeatClock(now + timedelta(hours=hours))
            async with Governor.open(url, clock=clock) as books:
                assert [one.state for one in await paid(books)] == [state]
        async with gateway(upstream=sim.base_url, url=url) as line, sdk_at(line.url) as sdk:
            assert len([one async for one in await sdk.messages.batches.results(made.id)]) == 2
            (entry,) = await paid(line.governor)
        assert (entry.state, entry.cost_pusd) == ("settled", sim.invoice_pusd())


# Refusals ---------------------------------------------------------------------------------------


async def test_a_budget_refuses_once_and_nothing_is_sent() -> None:
    async with (
        gateway(budgets=[Budget("cap", usd="0.000001")]) as line,
        sdk_at(line.url, max_retries=3) as sdk,
    ):
        with pytest.raises(anthropic.PaymentRequiredError, match="budget 'cap'") as caught:
            await sdk.messages.create(**ASK)
        with pytest.raises(anthropic.PaymentRequiredError):
            async with sdk.messages.stream(**ASK):
                pass
        with pytest.raises(anthropic.PaymentRequiredError):
            await sdk.messages.batches.create(requests=[{"custom_id": "a", "params": ASK}])
        assert caught.value.type == "billing_error"
        assert line.sim.requests == []
        assert await line.entries() == []


async def test_a_request_that_makes_no_sense_is_the_apis_to_refuse() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": 12}}
    odd: list[Json] = [
        ASK | {"messages": [{"role": "user", "content": [image]}]},
        ASK | {"tools": [{"type": {}, "name": "look"}]},
    ]
    async with gateway() as line, sdk_at(line.url) as sdk:
        for request in odd:
            with suppress(anthropic.BadRequestError):  # or the simulator makes sense of it
                await sdk.messages.create(**request)
        assert len(line.sim.requests) == len(odd)


async def test_a_callers_next_call_finds_the_hold_of_the_last_one_given_back() -> None:
    async with gateway() as free, sdk_at(free.url) as sdk:
        await sdk.messages.create(**ASK)
        [entry] = await free.entries()
    room = f"{(entry.hold_pusd or 0) / 1e12 * 1.9:.12f}"
    async with (
        gateway(budgets=[Budget("cap", usd=room)]) as line,
        sdk_at(line.url) as sdk,
    ):
        for _ in range(2):
            await sdk.messages.create(**ASK)


@pytest.mark.parametrize(
    ("fault", "states"),
    [
        (errors.rate_limited(retry_after_s=0), ["refused", "settled"]),
        (errors.overloaded(), ["refused", "settled"]),
        (Reset(), ["unknown", "settled"]),
        (Cut(), ["unknown", "settled"]),
        (Slow(delay_s=60), ["unknown", "settled"]),  # longer than its sender has patience
        (Dribble(bytes_each=50, every_s=60), ["unknown", "settled"]),
    ],
)
async def test_attempts_of_one_call_are_rows_of_one_call(fault: Fault, states: list[str]) -> None:
    async with gateway() as line, sdk_at(line.url, max_retries=2, timeout=1.0) as sdk:
        line.sim.fail_next(fault)
        await sdk.messages.create(**ASK)
        rows = await line.entries()
        assert [row.state for row in rows] == states
        assert len({row.call_id for row in rows}) == 1
        assert [row.attempt for row in rows] == [1, 2]


async def test_an_api_that_cannot_be_reached_is_said_and_costs_nothing() -> None:
    async with simulator() as sim:
        gone = sim.base_url
    async with gateway(upstream=gone) as line, sdk_at(line.url) as sdk:
        with pytest.raises(anthropic.InternalServerError, match="nothing was sent") as caught:
            await sdk.messages.create(**ASK)
        assert caught.value.status_code == 502
        assert await line.charged() == 0


@pytest.mark.parametrize(
    ("request_bytes", "status", "kind"),
    [
        (raw("POST /v1/messages", host="evil.example"), 421, "invalid_request_error"),
        (raw("GET /v1/models", "origin: https://evil.example"), 403, "permission_error"),
        (raw("GET /v1/models", "sec-fetch-site: cross-site"), 403, "permission_error"),
        (raw("GET /v1/files"), 404, "not_found_error"),
        (raw("GET /v1/models/..%2Ffiles"), 404, "not_found_error"),
        (raw("GET /v1/models/../files"), 404, "not_found_error"),
        (raw("GET /v1/organizations/me"), 404, "not_found_error"),
        (raw("DELETE /v1/messages"), 405, "invalid_request_error"),
        (raw("OPTIONS /v1/messages"), 405, "invalid_request_error"),
        (raw("POST /v1/messages", "x-llm-tags: team"), 400, "invalid_request_error"),
        (raw("POST /v1/messages", "x-llm-tags: a=1, a=2"), 400, "invalid_request_error"),
        (raw("POST /v1/messages", "x-llm-tags: A=1"), 400, "invalid_request_error"),
        (
            raw("POST /v1/messages", "x-llm-tags: lane=fast", body=BODY),
            400,
            "invalid_request_error",
        ),
        (raw("POST /v1/messages", "content-length: 99999999"), 413, "request_too_large"),
        (raw("GET /v1/models", body=b"x"), 413, "request_too_large"),
    ],
)
async def test_what_may_not_pass_gets_an_error_of_the_apis_own_shape(
    request_bytes: bytes, status: int, kind: str
) -> None:
    async with gateway() as line:
        found, headers, body = await ask_raw(line, request_bytes)
        assert found == status
        assert headers["x-should-retry"] == "false"
        said = json.loads(body)
        assert said["type"] == "error"
        assert said["error"]["type"] == kind
        assert line.sim.requests == []


async def test_a_tag_that_makes_no_sense_to_the_governor_is_refused_by_it() -> None:
    async with gateway() as line:
        request = raw("POST /v1/messages", *MESSAGE, "x-llm-tags: lane=fast", body=BODY)
        status, headers, body = await ask_raw(line, request)
        assert (status, headers["x-should-retry"]) == (400, "false")
        assert b"'interactive' or 'backfill'" in body
        assert line.sim.requests == []


async def test_a_body_sent_in_chunks_is_capped_too() -> None:
    async with gateway() as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(b"POST /v1/messages/batches/b/cancel HTTP/1.1\r\nhost: localhost\r\n")
        writer.write(b"transfer-encoding: chunked\r\n\r\n")
        writer.write(b"100001\r\n" + b"x" * 0x100001 + b"\r\n")
        async with asyncio.timeout(10):
            assert b" 413 " in await reader.readline()
        writer.transport.abort()
        assert line.sim.requests == []
        assert await line.entries() == []


# Bytes on the wire ------------------------------------------------------------------------------


async def test_a_bare_socket_gets_the_bytes_that_the_api_sent() -> None:
    async with gateway() as line:
        status, headers, body = await ask_raw(
            line,
            raw("POST /v1/messages", *MESSAGE, "x-llm-tags: team=a, issue=ABC-1", body=BODY),
        )
        assert status == 200
        assert headers["request-id"].startswith("req_")
        assert headers["content-length"] == str(len(body))
        [seen] = line.sim.requests
        assert seen.body == BODY
        assert "x-llm-tags" not in seen.headers
        [entry] = await line.entries()
        assert entry.request_id.startswith("req_")
        assert entry.tags == {"team": "a", "issue": "ABC-1"}
        assert entry.cost_pusd == line.sim.invoice_pusd()


async def test_only_listed_headers_pass() -> None:
    async with gateway() as line:
        extra = ("cookie: a=b", "x-forwarded-for: 1.2.3.4", "x-custom: 1", "accept-encoding: br")
        await ask_raw(line, raw("POST /v1/messages", *MESSAGE, *extra, body=BODY))
        [seen] = line.sim.requests
        names = {name.lower() for name in dict(seen.headers)}
        assert names - {"host", "connection", "content-length"} == {
            "x-api-key",
            "anthropic-version",
            "content-type",
            "accept-encoding",
        }
        assert seen.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("value", [b"req_\xe9", "req_€".encode(), b"req_\x01"])
async def test_a_paid_answer_passes_whatever_its_headers_hold(value: bytes) -> None:
    async with simulator() as sim, sdk_at(sim.base_url) as sdk:
        whole = (await sdk.messages.with_raw_response.create(**ASK)).http_response.content
        cost_pusd = sim.invoice_pusd()
    reply = answer(200, whole, "Content-Type: application/json", "anthropic-odd: VALUE")
    reply = reply.replace(b"VALUE", value)
    async with serving(replies(reply)) as upstream, gateway(upstream=upstream) as line:
        request = raw("POST /v1/messages", *MESSAGE, body=BODY)
        status, headers, body = await ask_raw(line, request)
        assert (status, body) == (200, whole)
        passed = None if b"\x01" in value else value.decode("latin-1")
        assert headers.get("anthropic-odd") == passed
        [entry] = await line.entries()
        assert (entry.state, entry.cost_pusd) == ("settled", cost_pusd)


async def test_a_stream_passes_as_it_comes() -> None:
    slow = simulator(behaviour=Behaviour(stream_pause_ms=50))
    async with gateway(slow) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        body = json.dumps({**ASK, "stream": True}).encode()
        writer.write(raw("POST /v1/messages", *MESSAGE, body=body))
        began, arrivals = time.monotonic(), []
        async with asyncio.timeout(20):
            while piece := await reader.read(65_536):
                arrivals += [time.monotonic() - began] * (b"content_block_delta" in piece)
        writer.close()
        assert len(arrivals) >= 5
        assert arrivals[-1] - arrivals[0] > 0.15


# Ends that are none -----------------------------------------------------------------------------


async def test_a_caller_killed_in_mid_stream_pays_for_what_came() -> None:
    slow = simulator(behaviour=Behaviour(stream_pause_ms=30))
    async with gateway(slow) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        body = json.dumps({**ASK, "stream": True}).encode()
        writer.write(raw("POST /v1/messages", *MESSAGE, body=body))
        seen = b""
        async with asyncio.timeout(20):
            while b"content_block_delta" not in seen:
                seen += await reader.read(65_536)
        writer.transport.abort()
        async with asyncio.timeout(10):
            while not line.sim.invoice_pusd():  # noqa: ASYNC110 - it bills when it notices
                await asyncio.sleep(0.01)
        [entry] = await line.entries()
        assert entry.state == "partial"
        assert entry.cost_pusd is not None
        assert 0 < line.sim.invoice_pusd() <= entry.cost_pusd <= (entry.hold_pusd or 0)


async def test_streams_that_are_left_while_the_model_goes_on_are_billed_within_the_budget() -> None:
    going_on = simulator(behaviour=GOING_ON)
    tags = {"x-llm-tags": ", ".join(f"{name}={value}" for name, value in TAGS.items())}
    async with gateway(going_on, budgets=[CAP]) as line, sdk_at(line.url) as sdk:
        evidence = await leave_streams(
            lambda: leave_by_sdk(sdk, extra_headers=tags), line.governor, line.sim
        )
    assert audit(evidence) == []
    (cap,) = evidence.states
    assert cap.spent_pusd < evidence.invoice_pusd == cap.counted_pusd <= cap.limit_pusd


async def test_a_caller_that_hangs_up_in_line_takes_nothing() -> None:
    limits = [Limit(concurrency=1)]
    slow = simulator(behaviour=Behaviour(stream_pause_ms=30))
    async with gateway(slow, limits=limits) as line, sdk_at(line.url) as sdk:
        async with sdk.messages.stream(**ASK) as stream:
            await anext(aiter(stream))
            _, writer = await asyncio.open_connection("127.0.0.1", line.port)
            writer.write(raw("POST /v1/messages", *MESSAGE, body=BODY))
            await writer.drain()
            await asyncio.sleep(0.1)
            writer.transport.abort()
            await stream.until_done()
        rows = await line.entries()
        assert sorted(row.state for row in rows) == ["released", "settled"]
        assert len(line.sim.requests) == 1
        assert await line.charged() == line.sim.invoice_pusd()


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_breaks_off_breaks_off_here_too(stream: bool) -> None:
    async with gateway() as line:
        line.sim.fail_next(Cut())
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        body = json.dumps({**ASK, "stream": stream}).encode()
        writer.write(raw("POST /v1/messages", *MESSAGE, body=body))
        async with asyncio.timeout(10):
            seen = await reader.read()
        writer.close()
        head, _, passed = seen.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        if stream:
            assert not passed.endswith(b"0\r\n\r\n")
        else:
            assert f"content-length: {len(passed)}".encode() not in head
        [entry] = await line.entries()
        assert entry.state == ("partial" if stream else "unknown")


async def test_what_stands_behind_a_complete_message_takes_nothing_from_its_bill() -> None:
    begun = {"id": "msg_1", "type": "message", "role": "assistant", "model": ASK["model"]}
    begun |= {"content": [], "usage": {"input_tokens": 9, "output_tokens": 1}}
    told_last = {"output_tokens": 3}
    told = [
        {"type": "message_start", "message": begun},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": told_last},
        {"type": "message_stop"},
    ]
    events = "".join(f"data: {json.dumps(event)}\n\n" for event in told) + "data: [DONE]\n\n"
    reply = chunked(events.encode())
    async with serving(replies(reply)) as base_url, gateway(upstream=base_url) as line:
        body = json.dumps({**ASK, "stream": True}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(raw("POST /v1/messages", *MESSAGE, body=body))
        async with asyncio.timeout(10):
            assert b"[DONE]" in await reader.read()
        writer.close()
        [entry] = await line.entries()
        assert (entry.state, entry.counters["output_tokens"]) == ("settled", 3)


async def test_a_stop_lets_a_running_stream_end_and_takes_no_new_call() -> None:
    slow = simulator(behaviour=Behaviour(stream_pause_ms=60))
    stopping = gateway(slow)
    line = await stopping.__aenter__()
    async with sdk_at(line.url) as sdk, sdk_at(line.url) as another:
        async with sdk.messages.stream(**ASK) as stream:
            await anext(aiter(stream))
            stop = asyncio.create_task(stopping.__aexit__(None, None, None))
            await asyncio.sleep(0.25)  # uvicorn looks every 0.1 s
            with pytest.raises(anthropic.APIConnectionError):
                await another.messages.create(**ASK)
            assert (await stream.get_final_message()).stop_reason
        await stop
    assert len(slow.requests) == 1


async def test_a_stop_that_may_not_wait_books_what_came(tmp_path: Path) -> None:
    slow = simulator(behaviour=Behaviour(stream_pause_ms=300))
    books = f"sqlite:///{tmp_path / 'books.db'}"
    async with AsyncExitStack() as stack, gateway(slow, url=books, goodbye_s=0) as line:
        sdk = await stack.enter_async_context(sdk_at(line.url))
        stream = await stack.enter_async_context(sdk.messages.stream(**ASK))
        await anext(aiter(stream))
    async with Governor.open(books) as governor:
        [entry] = await governor.ledger.entries()
    assert entry.state == "partial"
    assert (entry.cost_pusd or 0) >= slow.invoice_pusd() > 0


# Credentials ------------------------------------------------------------------------------------


async def test_with_a_key_of_its_own_callers_show_the_gateways_token() -> None:
    sim = simulator(credentials="real-key")
    options: Json = {
        "credentials": {"authorization": "Bearer real-key"},
        "token": Secret("open-sesame"),
    }
    async with gateway(sim, **options) as line:
        async with sdk_at(line.url, api_key="open-sesame") as sdk:
            await sdk.messages.create(**ASK)
        async with sdk_at(line.url, api_key="wrong", max_retries=3) as sdk:
            with pytest.raises(anthropic.AuthenticationError, match="its own token"):
                await sdk.messages.create(**ASK)
        async with sdk_at(line.url, api_key=None, auth_token="open-sesame") as sdk:
            await sdk.messages.create(**ASK)
        assert [request.headers["authorization"] for request in line.sim.requests] == [
            "Bearer real-key"
        ] * 2
        assert "open-sesame" not in repr([dict(each.headers) for each in line.sim.requests])


@pytest.mark.parametrize(
    "upstream",
    [
        "",
        "api.anthropic.com",
        "ftp://api.anthropic.com",
        "https://",
        "https://:443",
        "https://host:port",
        "https://ho st",
        "https://host/?key=s3cret",
        "https://host/#s3cret",
        "https://user:s3cret@host",
    ],
)
def test_an_upstream_that_is_none_is_refused_before_any_call(upstream: str) -> None:
    with pytest.raises(ConfigError, match="upstream") as caught:
        GatewayOptions(upstream=upstream)
    assert "s3cret" not in str(caught.value)


def test_a_token_without_a_key_of_its_own_is_a_settings_error() -> None:
    with pytest.raises(ConfigError, match="token"):
        GatewayOptions(token=Secret("t"))
    assert "s3cret" not in repr(
        GatewayOptions(credentials={"authorization": "s3cret"}, token=Secret("s3cret"))
    )


# The command ------------------------------------------------------------------------------------


def example(name: str) -> str:
    """Return a piece of code of the page."""
    found = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)\n```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


async def run_program(*words: str, **environ: str) -> str:
    """Run a program to its end and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        *words, env=clean_environment() | environ, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


def clean_environment() -> dict[str, str]:
    """Return this machine's environment without anybody's keys and proxies."""
    skipped = ("ANTHROPIC_", "GATEWAY_", "HTTP_", "HTTPS_", "http_", "https_")
    return {name: each for name, each in os.environ.items() if not name.startswith(skipped)}


@asynccontextmanager
async def gateway_command(
    *words: str, environ: Json = None, end: signal.Signals = signal.SIGTERM
) -> AsyncIterator[dict[str, str]]:
    """Start the command on a free port, and stop it as a supervisor does, or kill it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm_integrations", "gateway", "--port", "0", "--json", *words),
        env=clean_environment() | (environ or {}),
        stdout=PIPE,
        stderr=PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            yield json.loads(await process.stdout.readline())
        process.send_signal(end)
        async with asyncio.timeout(30):
            _, err = await process.communicate()
        assert (process.returncode, err) == (0 if end == signal.SIGTERM else -end, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_examples_of_the_page_run_against_the_command(tmp_path: Path) -> None:
    async with simulator() as sim:
        options = ("--upstream", sim.base_url, "--budget", "5/day", "--budget", "1/day/team")
        async with gateway_command(*options, environ={"XDG_STATE_HOME": str(tmp_path)}) as place:
            environ = {"ANTHROPIC_BASE_URL": place["gateway"], "ANTHROPIC_API_KEY": "k"}
            if shutil.which("curl"):
                told = await run_program("sh", "-c", example("curl"), **environ)
                assert '"type":"message"' in told
            told = await run_program(sys.executable, "-c", example("sdk"), **environ)
            assert told.startswith("Simulated answer")
        assert place["ledger"] == f"sqlite:///{tmp_path / 'llm-integrations' / 'gateway.db'}"
        books = await run_program(sys.executable, "-c", example("books"), place["ledger"])
        assert f"{sim.invoice_pusd()} pico-USD in all" in books
        assert "{'team': 'search'}" in books


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_a_batch_is_booked_by_the_gateway_after_the_one_that_made_it(
    tmp_path: Path, end: signal.Signals
) -> None:
    ledger = f"sqlite:///{tmp_path / 'books.db'}"
    async with ClaudeSimulator(latency_ms=(0, 0)) as sim:
        words = ("--upstream", sim.base_url, "--ledger", ledger, "--budget", "5/day")
        async with (
            gateway_command(*words, end=end) as place,
            sdk_at(place["gateway"]) as sdk,
        ):
            made = await sdk.messages.batches.create(requests=TWO)
        async with gateway_command(*words) as place, sdk_at(place["gateway"]) as sdk:
            async with Governor.open(ledger) as books:
                assert [one.state for one in await paid(books)] == ["held"]
                (state,) = await books.budgets.state()
                assert state.spent_pusd == 0 < state.held_pusd
            await ended(sdk, made.id)
            assert len([one async for one in await sdk.messages.batches.results(made.id)]) == 2
        async with Governor.open(ledger) as books:
            (entry,) = await paid(books)
            (state,) = await books.budgets.state()
    assert (entry.state, entry.cost_pusd) == ("settled", sim.invoice_pusd())
    assert (state.spent_pusd, state.held_pusd) == (sim.invoice_pusd(), 0)


async def test_a_key_from_the_environment_is_used_and_never_shown(tmp_path: Path) -> None:
    async with simulator(credentials="sk-hush") as sim:
        environ = {"ANTHROPIC_API_KEY": "sk-hush", "GATEWAY_TOKEN": "open-sesame"}
        words = ("--upstream", sim.base_url, "--ledger", "memory:", "--key-from-env")
        async with gateway_command(*words, environ=environ) as place:
            assert "hush" not in str(place)
            assert "sesame" not in str(place)
            async with sdk_at(place["gateway"], api_key="open-sesame") as sdk:
                await sdk.messages.create(**ASK)
        assert [request.headers["authorization"] for request in sim.requests] == ["Bearer sk-hush"]


@pytest.mark.parametrize(
    ("words", "environ", "says"),
    [
        (["--host", "0.0.0.0"], {}, "--expose"),
        (["--host", "llm.example"], {}, "--expose"),
        (["--expose", "--key-from-env"], {"ANTHROPIC_API_KEY": "k"}, "GATEWAY_TOKEN"),
        (["--key-from-env"], {}, "ANTHROPIC_API_KEY"),
        ([], {"GATEWAY_TOKEN": "t"}, "--key-from-env"),
        (["--budget", "5"], {}, "5/day"),
        (["--budget", "0/day"], {}, "above 0"),
        (["--budget", "5/fortnight"], {}, "fortnight"),
        (["--budget", "5/day/Team"], {}, "no call can have a tag 'Team'"),
        (["--budget", "5/day/team/issue"], {}, "no call can have a tag 'team/issue'"),
        (["--budget", "5/day/"], {}, "no call can have a tag ''"),
        (["--upstream", "api.anthropic.com"], {}, "upstream"),
        (["--ledger", "mysql://x"], {}, "sqlite:///path"),
    ],
)
def test_settings_that_make_no_sense_are_said_in_one_line(
    words: list[str],
    environ: dict[str, str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "GATEWAY_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    ledger = [] if "--ledger" in words else ["--ledger", "memory:"]
    assert run(["gateway", "--port", "0", *ledger, *words]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert says in said.err
