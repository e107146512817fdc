"""Memory stays flat under many calls: whatever is kept per call is in the ledger, or has an end.

Objects are counted by the garbage collector, pages by the operating system. A ledger in memory
keeps its newest `KEPT_ROWS` attempts, so it is full, and flat from then on, after a few more calls.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from llm_integrations._core.clock import SystemClock
from llm_integrations.anthropic import AnthropicClient, AnthropicConfig, Message, MessageRequest
from llm_integrations.errors import StoreError
from llm_integrations.governance import Budget, Governor, Limit
from llm_integrations.store import open_store
from llm_integrations.store.memory import KEPT_ROWS
from llm_integrations.store.records import BudgetRow, EntryFilter, Hold, Settlement, WindowClaim
from llm_integrations.store.sqlite import SqliteStore

TASKS = 64
PLENTY = 10**12
BODY = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-haiku-5-5",'
    b'"content":[{"type":"text","text":"%b"}],"stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":40,"output_tokens":90}}' % (b"All is well. " * 30)
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nrequest-id: req_1\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
REQUEST = MessageRequest(
    model="claude-haiku-5-5", max_tokens=200, messages=[Message.user("Is all well? " * 20)]
)


class Stub(asyncio.Protocol):
    """Answers each request, which comes whole in one piece, with the same message."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert data.endswith(b"}")
        self.transport.write(ANSWER)


@pytest.fixture
async def base_url() -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


def url_of(store: str, folder: Path) -> str:
    return "memory:" if store == "memory" else f"sqlite:///{folder / 'ledger.db'}"


def resident_mb() -> float:
    """Return the pages that this process has in memory, in MB; 0 where nobody says."""
    if sys.platform != "linux":
        return 0.0
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4_096 / 1e6


async def call_many(
    client: AnthropicClient, governor: Governor, numbers: range, *, issues: int
) -> tuple[int, float]:
    """Make calls for so many issues in turn; return objects and MB in use when they are over."""
    left = iter(numbers)

    async def work() -> None:
        for number in left:
            tags = {"issue": f"BEN-{number % issues}", "delivery": f"delivery-{number % issues}"}
            await client.send_message(REQUEST, tags=tags)

    async with asyncio.TaskGroup() as group:
        for _ in range(TASKS):
            group.create_task(work())
    await governor.ledger.total_pusd()  # writes what a ledger in memory has put aside
    gc.collect()
    return len(gc.get_objects()), resident_mb()


async def measure(
    base_url: str, url: str, *, stages: Sequence[int], issues: int
) -> list[tuple[int, float]]:
    """Make so many calls in each stage; return objects and MB after each."""
    config = AnthropicConfig(api_key="none", base_url=base_url, rate_limit_per_minute=None)
    limit = Limit(
        requests_per_minute=PLENTY, input_tokens_per_minute=PLENTY, output_tokens_per_minute=PLENTY
    )
    budgets = [Budget("cap", usd="100000"), Budget("each", usd="1000", by="issue")]
    async with (
        Governor.open(url, budgets=budgets, limits=[limit]) as governor,
        AnthropicClient(config, governor=governor) as client,
    ):
        seen = []
        calls = 0
        for count in stages:
            numbers = range(calls, calls + count)
            seen.append(await call_many(client, governor, numbers, issues=issues))
            calls += count
        entry_cost = (await governor.ledger.entries(limit=1))[0].cost_pusd
        assert entry_cost is not None
        assert await governor.ledger.total_pusd() == calls * entry_cost
    for objects, mb in seen:
        print(f"{url.partition(':')[0]}: {objects} objects, {mb:.1f} MB")
    return seen


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_calls_leave_no_objects_behind(base_url: str, store: str, tmp_path: Path) -> None:
    url = url_of(store, tmp_path)
    (warm, _), (later, _) = await measure(base_url, url, stages=[600, 1_200], issues=200)
    assert later - warm < 600  # half an object per call


@pytest.mark.soak
@pytest.mark.timeout(1_500)
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_200_000_calls_need_no_more_memory_than_the_first_40_000(
    base_url: str, store: str, tmp_path: Path
) -> None:
    issues = 6_000  # more than any cache of ours holds
    url = url_of(store, tmp_path)
    seen = await measure(base_url, url, stages=[40_000] * 5, issues=issues)
    objects, mb = seen[0]
    assert all(later < objects + 2_000 for later, _ in seen[1:])
    assert all(later < mb + 8 for _, later in seen[1:])


CAP = WindowClaim("cap", "", 0, PLENTY)


def attempt(number: int, *windows: WindowClaim) -> Hold:
    return Hold(
        call_id=f"{number:09}",
        attempt=1,
        owner="me",
        group="opus",
        model="claude-opus-5-5",
        hold_pusd=9,
        bounded=True,
        price_version="",
        tags="{}",
        issue=None,
        delivery=None,
        created_us=number,
        windows=windows,
    )


def budget(name: str, limit_pusd: int) -> BudgetRow:
    return BudgetRow(name=name, limit_pusd=limit_pusd, span="day", tag=None, zone="UTC", hard=True)


async def test_windows_stay_exact_when_there_are_more_than_are_remembered() -> None:
    store = await open_store("memory:", clock=SystemClock())
    await store.beat("me", 3_600)
    await store.save_budgets([budget("cap", 10**9), budget("each", 10)])
    count = 4_500

    def windows(number: int) -> tuple[WindowClaim, WindowClaim]:
        return CAP, WindowClaim("each", f"ABC-{number}", 0, PLENTY)

    for number in range(count):  # none has ended when the first ones are forgotten
        assert await store.hold(attempt(number, *windows(number))) is None
    refusal = await store.hold(attempt(count, *windows(0)))
    assert refusal is not None
    assert (refusal.budget, refusal.key, refusal.left_pusd) == ("each", "ABC-0", 1)
    for number in range(count):
        end = Settlement(
            call_id=f"{number:09}", attempt=1, state="settled", cost_pusd=1, settled_us=1
        )
        assert await store.settle(end)
        assert not await store.settle(end)
    cap, *each = await store.load_windows(1)
    assert (cap.spent_pusd, cap.held_pusd) == (count, 0)
    assert {(row.spent_pusd, row.held_pusd) for row in each} == {(1, 0)}
    assert await store.hold(attempt(count + 1, *windows(0))) is None
    await store.close()


async def test_a_ledger_in_memory_forgets_old_attempts_but_not_their_cost() -> None:
    store = await open_store("memory:", clock=SystemClock())
    await store.beat("me", 3_600)
    await store.save_budgets([budget("cap", 10**9)])
    count = KEPT_ROWS * 3 // 2

    for number in range(count):
        assert await store.hold(attempt(number, CAP)) is None
        if number != 5:  # this one never ends
            end = Settlement(
                call_id=f"{number:09}", attempt=1, state="settled", cost_pusd=3, settled_us=number
            )
            if number == 7:
                end = msgspec.structs.replace(end, state="unknown", cost_pusd=None)
            await store.settle(end)
    rows = await store.load_entries(EntryFilter(), limit=count)
    assert KEPT_ROWS <= len(rows) <= KEPT_ROWS * 5 // 4 + 300
    assert [row.call_id for row in rows[:2]] == [f"{count - 1:09}", f"{count - 2:09}"]
    assert [row.state for row in rows[-2:]] == ["unknown", "held"]
    assert await store.total_pusd(("settled",)) == (count - 2) * 3
    (window,) = await store.load_windows(1)
    assert (window.spent_pusd, window.held_pusd) == ((count - 2) * 3 + 9, 9)
    await store.close()


async def test_a_heartbeat_writes_no_rows_and_an_end_after_it_only_its_own() -> None:
    store = await open_store("memory:", clock=SystemClock())
    assert isinstance(store, SqliteStore)
    rows = store._writes._rows  # type: ignore[attr-defined]
    await store.beat("me", 3_600)
    await store.save_budgets([budget("cap", 10**9)])
    for number in range(100):
        await store.hold(attempt(number, CAP))
        if number != 50:
            end = Settlement(
                call_id=f"{number:09}", attempt=1, state="settled", cost_pusd=3, settled_us=number
            )
            assert await store.settle(end)
    await store.beat("me", 3_600)
    await store.sweep()
    await store.load_budgets()
    assert await store.load_alerting(1) == []
    assert len(rows) == 99
    late = Settlement(call_id=f"{50:09}", attempt=1, state="settled", cost_pusd=3, settled_us=50)
    assert await store.settle(late)
    assert len(rows) == 99
    assert not await store.settle(late)
    (window,) = await store.load_windows(1)
    assert (window.spent_pusd, window.held_pusd) == (300, 0)
    assert await store.total_pusd(("settled",)) == 300
    await store.close()


async def test_a_second_attempt_and_a_correction_find_what_is_not_written() -> None:
    store = await open_store("memory:", clock=SystemClock())
    assert isinstance(store, SqliteStore)
    rows = store._writes._rows  # type: ignore[attr-defined]
    await store.save_budgets([budget("cap", 10**9)])
    unknown = Settlement(call_id=f"{1:09}", attempt=1, state="unknown", settled_us=1)
    for number in range(3):
        await store.hold(attempt(number, CAP))
        assert await store.settle(msgspec.structs.replace(unknown, call_id=f"{number:09}"))
    with pytest.raises(StoreError, match="already"):
        await store.hold(attempt(1, CAP))
    await store.hold(msgspec.structs.replace(attempt(1, CAP), attempt=2))
    assert len(rows) == 3
    known = msgspec.structs.replace(unknown, state="settled", cost_pusd=3)
    assert await store.settle(known)
    assert not await store.settle(known)
    assert await store.total_pusd(("settled",)) == 3
    (window,) = await store.load_windows(1)
    assert (window.spent_pusd, window.held_pusd) == (9 + 3 + 9, 9)
    await store.close()
