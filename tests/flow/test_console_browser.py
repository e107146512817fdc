"""The console in a real Chromium: what it shows, how it keeps up, and whom it leaves out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.console import Desk, open_desk

pytestmark = pytest.mark.browser

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()
WAIT_MS = 20_000
NASTY = "<img src=x onerror=alert(1)>"


@pytest.fixture
async def desk(service_url: str) -> AsyncIterator[Desk]:
    async with open_desk(service_url, day_usd="0.10") as desk:
        yield desk


@pytest.fixture
async def chrome(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        await browser.close()


@asynccontextmanager
async def page_at(
    chrome: Browser, desk: Desk, *, width: int = 1280, dark: bool = False
) -> AsyncIterator[Page]:
    """Open the console; whatever the browser complains of fails the test."""
    context = await chrome.new_context(
        viewport={"width": width, "height": 844}, color_scheme="dark" if dark else "light"
    )
    page = await context.new_page()
    page.set_default_timeout(WAIT_MS)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(desk.entrance)
    await expect(page.locator("#live")).to_have_text("live", timeout=WAIT_MS)
    yield page
    assert not complaints
    await context.close()


async def test_it_shows_what_is_there_and_what_comes_without_being_asked(
    desk: Desk, chrome: Browser
) -> None:
    first = await desk.arrive("ABC-1")
    async with page_at(chrome, desk) as page:
        assert "token" not in page.url
        rows = page.locator("#rows tr")
        await expect(rows).to_have_count(1)
        await desk.act(first, NASTY)
        await desk.pay(first, 20_000_000_000)
        await desk.end(first, "done")
        await desk.arrive("ABC-2")
        await expect(rows).to_have_count(2, timeout=WAIT_MS)
        await expect(rows.first).to_contain_text("ABC-2")
        await expect(rows.last).to_contain_text("done", timeout=WAIT_MS)
        await expect(rows.last).to_contain_text(NASTY)
        await expect(rows.last).to_contain_text("0.020000")
        await expect(page.locator("#counts")).to_contain_text("done 1", timeout=WAIT_MS)
        plot = page.get_by_role("img", name="Spent today")
        await expect(plot).to_have_attribute(
            "aria-label",
            "Spent today, running total: 0.020000 USD spent since 00:00 UTC,"
            " of a budget of 0.10 USD",
            timeout=WAIT_MS,
        )


async def test_everything_can_be_reached_by_keyboard_and_an_update_takes_no_focus(
    desk: Desk, chrome: Browser
) -> None:
    delivery_id = await desk.arrive("ABC-1")
    async with page_at(chrome, desk) as page:
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")
        await expect(focused).to_have_text("Skip to the deliveries")
        outline = await focused.evaluate("node => getComputedStyle(node).outlineStyle")
        assert outline == "solid"
        await page.keyboard.press("Enter")
        reached = []
        for _ in range(10):
            await page.keyboard.press("Tab")
            reached.append(await focused.evaluate("node => node.innerText || node.id"))
            if reached[-1] == "ABC-1":
                break
        assert reached[0].startswith("all")
        assert reached[-3:] == ["issue", "Filter", "ABC-1"]
        await desk.end(delivery_id, "dead", "gave up")
        await expect(page.locator("#rows")).to_contain_text("gave up", timeout=WAIT_MS)
        await expect(focused).to_have_text("ABC-1")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text("ABC-1")


@pytest.mark.parametrize("width", [390, 320])
async def test_a_narrow_screen_shows_all_of_it_without_sideways_scrolling(
    desk: Desk, chrome: Browser, width: int
) -> None:
    long = "W" * 200
    delivery_id = await desk.arrive(long, event=long, handler=long)
    await desk.act(delivery_id, long, "refused", long)
    await desk.pay(delivery_id, 1, issue=long)
    await desk.end(delivery_id, "dead", long)
    async with page_at(chrome, desk, width=width) as page:
        for path in ("/", f"/deliveries/{delivery_id}"):
            await page.goto(desk.url + path)
            wide = await page.evaluate("document.documentElement.scrollWidth")
            assert wide == width
        await page.goto(desk.url)
        table = page.get_by_role("table", name="Deliveries")
        cells = table.get_by_role("cell")
        await expect(cells).to_have_count(8)
        # Found and measured by one script: an update that arrives in between replaces the cells.
        sides: list[tuple[float, float]] = await page.evaluate(SIDES)
        assert len(sides) == 8
        for left, right in sides:
            assert 0 <= left < right <= width
        await expect(page.locator("#live")).to_have_text("live", timeout=WAIT_MS)


SIDES = """() => [...document.querySelectorAll("#rows [role=cell]")].map((cell) => {
  const box = cell.getBoundingClientRect();
  return [box.left, box.right];
})"""

CONTRASTS = """() => {
  const channel = (value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  };
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) =>
    0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = numbers(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const seen = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || node.closest("svg") || node.closest(".fresh")) continue;
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen.push([ratio, node.className + ": " + node.textContent.slice(0, 40)]);
  }
  return seen;
}"""


@pytest.mark.parametrize("dark", [False, True])
async def test_every_word_stands_out_from_its_ground_in_light_and_dark(
    desk: Desk, chrome: Browser, dark: bool
) -> None:
    for outcome in ("done", "proposed", "ignored", "superseded", "stale", "dead"):
        delivery_id = await desk.arrive("ABC-1")
        await desk.act(delivery_id, "set priority", "refused", "not allow-listed")
        await desk.end(delivery_id, outcome, "why")
    await desk.arrive("ABC-2")
    await desk.store.pause()
    async with page_at(chrome, desk, dark=dark) as page:
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(19, 20, 24)") is dark
        contrasts: list[tuple[float, str]] = await page.evaluate(CONTRASTS)
        assert len(contrasts) > 50
        assert [each for each in contrasts if each[0] < 4.5] == []


async def test_without_script_the_page_is_whole_and_can_be_filtered(
    desk: Desk, chrome: Browser
) -> None:
    await desk.arrive("ABC-1")
    await desk.arrive("ABC-2")
    context = await chrome.new_context(java_script_enabled=False)
    page = await context.new_page()
    page.set_default_timeout(WAIT_MS)
    await page.goto(desk.entrance)
    await page.get_by_label("Issue", exact=True).fill("ABC-2")
    await page.get_by_role("button", name="Filter").click()
    rows = page.locator("#rows tr")
    await expect(rows).to_have_count(1, timeout=WAIT_MS)
    await expect(rows).to_contain_text("ABC-2")
    await context.close()
