"""The console over a real socket and a real database: who may come in, and what they see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from html.parser import HTMLParser

import aiohttp
import pytest

from llm_integrations._core.admission import Actual, Ask
from llm_integrations.governance import Governor
from tests.console import TOKEN, Desk, open_desk

NASTY = "<script>alert(1)</script>\u202e'\"&"


@pytest.fixture
async def desk(service_url: str) -> AsyncIterator[Desk]:
    async with open_desk(service_url) as desk:
        yield desk


@pytest.fixture
async def stranger(desk: Desk) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser without the token."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(desk.url, cookie_jar=jar) as session:
        yield session


@pytest.fixture
async def browser(desk: Desk, stranger: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """A browser that has shown the token."""
    entrance = desk.entrance.removeprefix(desk.url)
    async with stranger.get(entrance, allow_redirects=False) as answer:
        assert answer.status == 303
    return stranger


async def text_of(session: aiohttp.ClientSession, path: str, status: int = 200) -> str:
    async with session.get(path) as answer:
        assert answer.status == status
        return await answer.text()


class Cells(HTMLParser):
    """Collects the text of each row of the table by the name of its column."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, str]] = []
        self._column = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append({})
        if tag == "td":
            self._column = dict(attrs)["data-label"] or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._column = ""

    def handle_data(self, data: str) -> None:
        if self._column:
            self.rows[-1][self._column] = self.rows[-1].get(self._column, "") + data


def rows_of(page: str) -> list[dict[str, str]]:
    cells = Cells()
    cells.feed(page)
    return [row for row in cells.rows if row]


# --- the door ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/events", "/deliveries/x", "/nothing", "/?token=wrong"])
async def test_without_the_token_every_page_is_a_locked_door_that_says_where_the_key_is(
    desk: Desk, stranger: aiohttp.ClientSession, path: str
) -> None:
    await desk.arrive("SECRET-1")
    page = await text_of(stranger, path, 401)
    assert "llm-integrations serve" in page
    assert "SECRET" not in page


async def test_the_token_becomes_a_cookie_that_neither_scripts_nor_other_sites_can_use(
    desk: Desk, stranger: aiohttp.ClientSession
) -> None:
    async with stranger.get(f"/?token={TOKEN}", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie


async def test_a_cookie_that_is_not_ours_opens_nothing(stranger: aiohttp.ClientSession) -> None:
    for value in ("", TOKEN, "é", "0" * 64):
        headers = {"cookie": f"llm_integrations_console={value}"}
        async with stranger.get("/", headers=headers) as answer:
            assert answer.status == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]:{port}", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost@evil.example", 421),
    ],
)
async def test_only_names_of_this_machine_are_answered(
    desk: Desk, browser: aiohttp.ClientSession, host: str, status: int
) -> None:
    headers = {"host": host.format(port=desk.url.rpartition(":")[2])}
    cookie = next(iter(browser.cookie_jar))
    headers["cookie"] = f"{cookie.key}={cookie.value}"
    async with browser.get("/", headers=headers) as answer:
        assert answer.status == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_nothing_can_be_sent_to_it(browser: aiohttp.ClientSession, method: str) -> None:
    async with browser.request(method, "/") as answer:
        assert answer.status == 405


@pytest.mark.parametrize("path", ["/", "/nothing", "/static/console.js", "/?token=wrong"])
async def test_every_answer_forbids_what_a_page_does_not_need(
    browser: aiohttp.ClientSession, path: str
) -> None:
    async with browser.get(path) as answer:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"


# --- what is on the page -------------------------------------------------------------------------


async def test_the_table_tells_what_arrived_what_became_of_it_and_what_it_cost(
    desk: Desk, browser: aiohttp.ClientSession
) -> None:
    first = await desk.arrive("ABC-1")
    await desk.pay(first, 1_234_567_890)
    await desk.act(first, "set priority")
    await desk.act(first, "comment triage (20 characters)", "refused", "link host not allow-listed")
    await desk.end(first, "done")
    second = await desk.arrive("ABC-2", event="comment_created", handler="summarise")
    await desk.end(second, "ignored", "own write")
    await desk.arrive("ABC-3", handler="")
    page = await text_of(browser, "/")
    rows = rows_of(page)
    assert [row["Issue"] for row in rows] == ["ABC-3", "ABC-2", "ABC-1"]
    assert [row["Handler"] for row in rows] == ["none", "summarise", "triage"]
    assert [row["Outcome"] for row in rows] == ["open", "ignoredown write", "done"]
    assert rows[2]["Actions"] == (
        "sent set priorityrefused comment triage (20 characters)link host not allow-listed"
    )
    assert [row["Cost (USD)"] for row in rows][::2] == ["–", "0.001235"]  # noqa: RUF001 - as shown
    assert [row["Tries"] for row in rows] == ["0", "0", "1"]
    assert "0.001235 USD spent since" in page
    assert "budget 5.00 USD" in page


async def test_rows_are_found_by_outcome_and_by_issue(
    desk: Desk, browser: aiohttp.ClientSession
) -> None:
    for number in (1, 2):
        await desk.end(await desk.arrive(f"ABC-{number}"), "dead", "gave up")
    await desk.arrive("ABC-1")
    by_outcome = rows_of(await text_of(browser, "/?outcome=dead"))
    assert [row["Issue"] for row in by_outcome] == ["ABC-2", "ABC-1"]
    by_both = rows_of(await text_of(browser, "/?outcome=open&issue=ABC-1"))
    assert [row["Outcome"] for row in by_both] == ["open"]
    assert not rows_of(await text_of(browser, "/?issue=ABC-9"))


@pytest.mark.parametrize(
    "query", ["outcome=nonsense", "before=-1", "before=99999999999999999999", "issue=%00", "x=%ff"]
)
async def test_a_query_that_makes_no_sense_is_no_error(
    desk: Desk, browser: aiohttp.ClientSession, query: str
) -> None:
    await desk.arrive("ABC-1")
    assert len(rows_of(await text_of(browser, f"/?{query}"))) == 1


async def test_older_deliveries_are_a_page_further(
    desk: Desk, browser: aiohttp.ClientSession
) -> None:
    for number in range(51):
        await desk.arrive(f"ABC-{number}")
    page = await text_of(browser, "/")
    assert len(rows_of(page)) == 50
    older = page.split('id="older"')[0].rpartition('href="')[2].partition('"')[0]
    rest = rows_of(await text_of(browser, older.replace("&amp;", "&")))
    assert [row["Issue"] for row in rest] == ["ABC-0"]


async def test_text_of_strangers_is_text(desk: Desk, browser: aiohttp.ClientSession) -> None:
    delivery_id = await desk.arrive(NASTY, event=NASTY, handler=NASTY)
    await desk.act(delivery_id, NASTY, "refused", NASTY)
    await desk.end(delivery_id, "dead", NASTY)
    for path in ("/", f"/deliveries/{delivery_id}"):
        page = await text_of(browser, path)
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    page = await text_of(browser, "/?issue=%22%3E%3Cscript%3Ealert(2)%3C/script%3E")
    assert "<script>alert" not in page


async def test_pause_and_dry_run_stand_on_top(desk: Desk, browser: aiohttp.ClientSession) -> None:
    await desk.store.pause()
    page = await text_of(browser, "/")
    assert ">dry run<" in page
    assert ">paused<" in page


async def test_one_delivery_is_told_whole_but_for_its_body(
    desk: Desk, browser: aiohttp.ClientSession
) -> None:
    delivery_id = await desk.arrive("ABC-1")
    await desk.pay(delivery_id, 1_234_567_891)
    await desk.act(delivery_id, "set priority")
    await desk.end(delivery_id, "done")
    page = await text_of(browser, f"/deliveries/{delivery_id}")
    for told in ("hook-1", "set priority", "0.001234567891", "req_01", "1,200", "26 bytes"):
        assert told in page
    assert "of the ticket" not in page
    for unknown in ("unknown", "%00"):
        assert "There is nothing here" in await text_of(browser, f"/deliveries/{unknown}", 404)


# --- the stream ----------------------------------------------------------------------------------


async def changes(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, dict[str, str]]]:
    async for line in answer.content:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


async def test_the_stream_tells_everything_once_and_then_what_changed(
    desk: Desk, browser: aiohttp.ClientSession
) -> None:
    first = await desk.arrive("ABC-1")
    async with asyncio.timeout(30), browser.get("/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = changes(answer)
        everything = await anext(told)
        assert list(everything["regions"]) == ["state", "spend", "budgets", "counts"]
        assert len(everything["rows"]) == 1
        await desk.end(first, "done")
        await desk.arrive("ABC-2")
        seen: dict[str, str] = {}
        while len(seen) < 2 or "done" not in "".join(seen.values()):
            seen |= (await anext(told))["rows"]


async def test_a_stream_ends_when_the_console_closes(
    desk: Desk, browser: aiohttp.ClientSession
) -> None:
    async with asyncio.timeout(10), browser.get("/events") as answer:
        await answer.content.readline()
        desk.console.close()
        await answer.read()


async def test_a_page_says_so_when_the_database_is_away(
    desk: Desk, browser: aiohttp.ClientSession
) -> None:
    await desk.store.close()
    page = await text_of(browser, "/", 503)
    assert "database cannot be reached" in page


# --- the page about money ------------------------------------------------------------------------


async def test_the_spend_page_shows_what_the_ledger_says(
    desk: Desk, browser: aiohttp.ClientSession
) -> None:
    ask = Ask(
        group="opus",
        model="claude-opus-5-5",
        hold_pusd=10**10,
        tags={"project": NASTY, "handler": "triage"},
    )
    permit = await desk.governor.admit(ask)
    await desk.governor.settle(permit, Actual(state="settled", cost_pusd=1_234_567_000))
    page = await text_of(browser, "/spend")
    rows = {row.get("Model", row.get("Project", row.get("Handler"))): row for row in rows_of(page)}
    assert rows["claude-opus-5-5"]["Cost (USD)"] == "0.001235"
    assert rows["triage"]["Share"] == "100 %"
    assert rows[NASTY]["Attempts"] == "1"
    assert "<script>alert" not in page
    assert "Expected this month" in page


async def test_both_pages_say_which_alert_of_a_budget_was_the_last(
    desk: Desk, browser: aiohttp.ClientSession, service_url: str
) -> None:
    async with Governor.open(service_url) as other:  # whoever tells, all pages know
        permit = await other.admit(Ask(group="opus", model="m", hold_pusd=41 * 10**11))
        await other.settle(permit, Actual(state="settled", cost_pusd=41 * 10**11))
    for path in ("/", "/spend"):
        assert "82 % used, alerted at 80 %" in await text_of(browser, path)
