"""The example's page for people who use it by finger, by keyboard, by ear, or in the dark: axe-core
has no finding in any state of it, and every control is large enough and can be reached."""

from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import expect

from tests.example.test_browser_page import HEBREW, empty, full, post, scroll_up
from tests.support.chromium import HOTEL, TRIP, Tab, grows, outage

# One browser for all tests, which lives in one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

every_look = pytest.mark.parametrize(
    "look",
    [
        *("desktop-light", "phone-dark"),
        *(pytest.param(look, marks=pytest.mark.slow) for look in ("desktop-dark", "phone-light")),
    ],
)
TARGET = 44  # pixels
# Elements that are seen and can be pressed, and are smaller than that.
SMALL = """size => [...document.querySelectorAll("button, textarea, summary, a")]
    .filter((element) => element.checkVisibility())
    .map((element) => [element.outerHTML, element.getBoundingClientRect()])
    .filter(([, { width, height }]) => Math.min(width, height) < size - 0.1)
    .map(([html, { width, height }]) => `${width} x ${height}: ${html}`)"""
# What is wider than the page, and so cut off or to be scrolled to.
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@every_look
async def test_the_page_is_accessible_while_one_talks(visitor, look):
    tab = await visitor.tab()
    await accessible(tab, "1-welcome")
    await tab.say(TRIP)
    await grows(tab)
    await tab.picture("2-answering")
    assert await tab.page.evaluate(SMALL, TARGET) == []
    await tab.stop.click()
    await tab.is_quiet(2)
    await accessible(tab, "3-stopped")
    await tab.say("under $300")
    await tab.is_quiet(4)
    await tab.say(f"{HEBREW}\n{HOTEL} {'x' * 200}")
    await tab.is_quiet(6)
    await accessible(tab, "4-answered")
    if look.startswith("phone"):
        await tab.page.get_by_role("button", name="Notes").click()
    await expect(tab.page.locator("#notes")).to_be_visible()
    await accessible(tab, "5-notes")
    await tab.page.get_by_text("Show it as it is stored").click()
    await accessible(tab, "6-raw")


@every_look
async def test_the_page_is_accessible_when_there_is_something_to_press(visitor):
    tab = await full(visitor)
    await scroll_up(tab.page)
    await post(visitor, HOTEL)
    await expect(tab.below).to_be_visible()
    await accessible(tab, "7-new-below")
    await tab.new.click()
    await expect(tab.undo).to_be_visible()
    await accessible(tab, "8-undo")


@every_look
async def test_the_page_of_a_refusal_is_accessible(visitor):
    await visitor.context.route("**/chat.js", lambda route: route.abort())
    tab = await visitor.tab(is_live=False)
    await tab.page.evaluate("document.getElementById('text').value = 'x'.repeat(3000)")
    await tab.page.click("#send")
    await expect(tab.notice).to_contain_text("3000 characters")
    await accessible(tab, "9-refused")
    assert "413" in visitor.complaints.pop()  # so says the browser itself


@pytest.mark.slow
@every_look
async def test_the_page_is_accessible_when_something_is_wrong(visitor, server, own_site):
    own_site.restart(REDIS_TIMEOUT="0.25", CONCIERGE_PAUSE="0.005")
    tab = await visitor.tab()
    async with outage(tab, server):
        await accessible(tab, "10-outage")
    await accessible(tab, "11-after-the-outage")
    own_site.stop()
    await expect(tab.banner).to_contain_text("line to the concierge is down")
    await accessible(tab, "12-server-away")
    empty(server)
    own_site.environment["CONVERSATION_TTL"] = "4"
    own_site.start()
    await expect(tab.notice).to_contain_text("is gone")
    await expect(tab.banner).to_have_count(0)
    await accessible(tab, "13-emptied")
    await tab.say(HOTEL)
    await tab.is_quiet(2)
    await expect(tab.notice).to_contain_text("has expired")
    await accessible(tab, "14-expired")


async def test_everything_is_reached_by_keyboard_in_the_order_in_which_it_is_seen(visitor):
    tab = await visitor.tab()
    await tab.say(HOTEL)
    await tab.is_quiet(2)
    page = tab.page
    copies = page.get_by_role("button", name="Copy this message")
    reached = [
        page.get_by_role("navigation").get_by_role("button", name=HOTEL),
        page.get_by_role("log", name="Conversation"),
        *(copies.nth(0), copies.nth(1)),
        page.get_by_role("textbox", name="Your message"),
        page.get_by_role("button", name="Send"),
        page.get_by_text("Show it as it is stored"),
    ]
    await page.get_by_role("button", name="New conversation").focus()
    for element in reached:
        await page.keyboard.press("Tab")
        await expect(element).to_be_focused()


async def test_what_is_read_out(visitor):
    """What comes to be seen without being asked for is in a region that is read out."""
    tab = await visitor.tab()
    for role, name in (("log", "Conversation"), ("complementary", "What I keep in mind")):
        await expect(tab.page.get_by_role(role, name=name, exact=True)).to_have_count(1)
    for id, role in (("banner", "status"), ("offer", "status"), ("notice", "alert")):
        await expect(tab.page.locator(f"#{id}")).to_have_attribute("role", role)
    await tab.say(TRIP)
    await grows(tab)
    # Its words would be read out of order; it is read when it is finished.
    await expect(tab.page.locator(".message.live")).to_have_attribute("aria-hidden", "true")
    await tab.is_quiet(2)
    await expect(tab.messages.last).not_to_have_attribute("aria-hidden", "true")


async def test_nothing_moves_for_whoever_wants_it_so(visitor):
    tab = await visitor.tab()
    await tab.page.emulate_media(reduced_motion="reduce")
    await tab.say(TRIP)
    await grows(tab)
    moving = "document.getAnimations().filter((a) => a.effect.getTiming().duration > 20).length"
    assert await tab.page.evaluate(moving) == 0
    await tab.is_quiet(2)


async def accessible(tab: Tab, name: str) -> None:
    """Look at the page, when all that moves has come to rest."""
    await tab.page.evaluate(
        "Promise.allSettled(document.getAnimations().map((animation) => animation.finished))"
    )
    await tab.picture(name)
    found: Any = (await Axe().run(tab.page)).response["violations"]
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found] == []
    assert await tab.page.evaluate(SMALL, TARGET) == []
    assert await tab.page.evaluate(OVERFLOW) <= 0
