"""What the example's page does for its reader, in a real browser."""

import json
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from playwright.async_api import Locator, Page, expect
from redis import Redis

from tests.support.chromium import HOTEL, TRIP, Tab, Visitor, grows
from tests.support.servers import Server

# One browser for all tests, which lives in one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

HEBREW = "אני מחפש מלון"  # "I am looking for a hotel"


class TestFollowing:
    async def test_the_end_stays_in_sight_for_whoever_is_there(self, visitor):
        tab = await full(visitor)
        await post(visitor, HOTEL)
        await tab.is_quiet(14)
        await expect(tab.said.last).to_be_in_viewport()
        await expect(tab.below).to_be_hidden()
        assert await scrolled(tab.page) == 0

    async def test_whoever_has_scrolled_up_stays_there_and_is_told(self, visitor):
        tab, two = await full(visitor), await visitor.tab()
        top = await scroll_up(tab.page)
        await two.say(TRIP)
        await expect(tab.below).to_be_visible()
        await tab.is_quiet(14)
        assert await top_of_first(tab.page) == top
        await tab.below.click()
        await expect(tab.below).to_be_hidden()
        await expect(tab.said.last).to_be_in_viewport()
        assert await scrolled(tab.page) == 0

    async def test_the_button_goes_when_the_end_is_reached_by_scrolling(self, visitor):
        tab = await full(visitor)
        await scroll_up(tab.page)
        await expect(tab.below).to_be_hidden()  # there is nothing new
        await post(visitor, HOTEL)
        await expect(tab.below).to_be_visible()
        await tab.page.evaluate("document.getElementById('transcript').scrollTop = 0")
        await expect(tab.below).to_be_hidden()

    @pytest.mark.slow
    async def test_what_one_says_oneself_leads_to_the_end(self, visitor):
        tab = await full(visitor)
        await scroll_up(tab.page)
        await tab.say(HOTEL)
        await tab.is_quiet(14)
        assert await scrolled(tab.page) == 0


class TestStop:
    async def test_stop_ends_the_answer_and_keeps_what_there_was(self, visitor):
        one, two = await visitor.tab(), await visitor.tab()
        await expect(one.stop).to_be_hidden()
        await one.say(TRIP)
        await grows(one)
        await expect(two.stop).to_be_visible()
        await one.stop.focus()
        await one.page.keyboard.press("Enter")
        for tab in (one, two):
            await tab.is_quiet(2)
            await expect(tab.interrupted).to_have_text("You stopped this answer.")
            await expect(tab.stop).to_be_hidden()
        await expect(one.page.locator("#text")).to_be_focused()
        before = await one.said.all_text_contents()
        await one.page.reload()
        await expect(one.interrupted).to_have_text("You stopped this answer.")
        assert await one.said.all_text_contents() == before
        await one.say("thanks")
        await two.is_quiet(4)

    @pytest.mark.slow
    async def test_an_event_stream_is_stopped_too(self, visitor):
        await visitor.context.route_web_socket("**/live*", lambda socket: socket.close())
        tab = await visitor.tab(is_live=False)
        await tab.say(TRIP)
        await grows(tab)
        await tab.stop.click()
        await tab.is_quiet(2)
        await expect(tab.interrupted).to_have_text("You stopped this answer.")
        assert tab.posted == ["stream"]


class TestNew:
    async def test_undo_brings_the_conversation_back_in_all_tabs(self, visitor):
        one, two = await visitor.tab(), await visitor.tab()
        await one.say(HOTEL)
        await two.is_quiet(2)
        before = await one.said.all_text_contents()
        await one.new.click()
        for tab in (one, two):
            await expect(tab.messages).to_have_count(0)
        await expect(one.undo).to_be_visible()
        await expect(two.undo).to_be_hidden()
        await one.undo.click()
        for tab in (one, two):
            await tab.is_quiet(2)
            assert await tab.said.all_text_contents() == before
        await expect(one.undo).to_be_hidden()
        await two.say("under $90")
        for tab in (one, two):
            await tab.is_quiet(4)
            await expect(tab.said.last).to_contain_text("Paris")  # the state is there, too

    @pytest.mark.slow
    async def test_the_offer_outlives_a_reload_and_goes_with_the_next_message(self, visitor):
        tab = await visitor.tab()
        await tab.say(HOTEL)
        await tab.is_quiet(2)
        await tab.new.click()
        await expect(tab.undo).to_be_visible()
        await tab.page.reload()
        await expect(tab.undo).to_be_visible()
        await expect(tab.notice).to_be_hidden()
        await tab.say(TRIP)
        await expect(tab.undo).to_be_hidden()
        await tab.is_quiet(2)

    async def test_the_offer_ends_after_a_minute(self, visitor):
        await visitor.context.clock.install()
        tab = await visitor.tab()
        await tab.say(HOTEL)
        await tab.is_quiet(2)
        await tab.new.click()
        await expect(tab.undo).to_be_visible()
        await tab.undo.focus()
        await visitor.context.clock.fast_forward("01:01")
        await expect(tab.undo).to_be_hidden()
        await expect(tab.page.locator("#text")).to_be_focused()

    @pytest.mark.slow
    async def test_it_stops_the_answer_that_is_being_made(self, visitor):
        tab = await visitor.tab()
        await tab.say(TRIP)
        await grows(tab)
        await tab.new.click()
        await expect(tab.messages).to_have_count(0)
        await tab.undo.click()
        await tab.is_quiet(2)
        await expect(tab.interrupted).to_have_text("You stopped this answer.")

    async def test_of_an_empty_conversation_there_is_nothing_to_undo(self, visitor):
        tab = await visitor.tab()
        async with tab.page.expect_response("**/api/new"):
            await tab.new.click()
        await tab.say(HOTEL)
        await tab.is_quiet(2)
        await expect(tab.undo).to_be_hidden()

    async def test_forms_do_so_without_scripts(self, browser, site):
        context = await browser.new_context(java_script_enabled=False)
        page = await context.new_page()
        await page.goto(site.url)
        await page.fill("#text", HOTEL)
        await page.click("#send")
        await expect(page.locator(".message")).to_have_count(2)
        await page.click("#new-form button")
        await expect(page.locator(".message")).to_have_count(0)
        await page.click("#undo button")
        await expect(page.locator(".message")).to_have_count(2)
        await context.close()


class TestEmptied:
    async def test_an_emptied_store_is_explained_after_a_reload(self, visitor, own_site, server):
        tab = await visitor.tab()
        await tab.say(HOTEL)
        await tab.is_quiet(2)
        empty(server)
        await tab.page.reload()
        await expect(tab.messages).to_have_count(0)
        await expect(tab.notice).to_contain_text("The conversation that was here is gone")
        await tab.say(TRIP)
        await tab.is_quiet(2)
        await expect(tab.notice).to_be_hidden()
        await tab.page.reload()
        await expect(tab.notice).to_be_hidden()

    @pytest.mark.slow
    async def test_it_is_explained_to_whoever_says_something(self, visitor, own_site, server):
        tab = await visitor.tab()
        await tab.say(HOTEL)
        await tab.is_quiet(2)
        empty(server)
        await tab.say("thanks")
        await expect(tab.notice).to_contain_text("was over, so this is a new one")
        await tab.is_quiet(2)
        await expect(tab.said.first).to_have_text("thanks")

    @pytest.mark.slow
    async def test_a_restart_in_memory_is_explained(self, visitor, own_site):
        own_site.stop()
        own_site.environment["CONVERSATION_STATE_BACKEND"] = "locmem"
        own_site.start()
        tab = await visitor.tab()
        await tab.say(HOTEL)
        await tab.is_quiet(2)
        own_site.stop()
        await expect(tab.banner).to_have_count(1)
        await tab.is_quiet(2)  # until the server says that it is gone
        own_site.start()
        await expect(tab.notice).to_contain_text("The conversation that was here is gone")
        await expect(tab.messages).to_have_count(0)
        await expect(tab.page.locator("#welcome")).to_be_visible()


class TestMessages:
    async def test_text_is_shown_in_its_own_direction(self, visitor):
        tab = await visitor.tab()
        await tab.page.fill("#text", HEBREW)
        assert await direction(tab.page.locator("#text")) == "rtl"
        await tab.say(HEBREW)
        await tab.is_quiet(2)
        assert await direction(tab.said.first) == "rtl"
        assert await direction(tab.said.last) == "ltr"
        await tab.page.reload()
        assert await direction(tab.said.first) == "rtl"
        noted = tab.page.locator("#state dd", has_text=HEBREW)
        assert await direction(noted) == "rtl"

    async def test_times_are_those_of_the_reader(self, visitor):
        tab = await visitor.tab()
        await tab.say(HOTEL)
        await tab.is_quiet(2)
        await expect_local_times(tab)
        await tab.page.reload()
        await tab.is_quiet(2)
        await expect_local_times(tab)

    async def test_a_message_can_be_copied(self, visitor):
        tab = await visitor.tab()
        await tab.say(HOTEL)
        await tab.is_quiet(2)
        for name in ("a message that came", "one that came with the page"):
            copy = tab.messages.last.get_by_role("button", name="Copy this message")
            await copy.click()
            await expect(tab.messages.last.locator(".copy")).to_contain_text("Copied")
            copied = await tab.page.evaluate("navigator.clipboard.readText()")
            assert copied == await tab.said.last.text_content(), name
            await tab.page.evaluate("navigator.clipboard.writeText('')")
            await tab.page.reload()
            await tab.is_quiet(2)

    async def test_notes_are_in_groups_and_raw_if_one_asks(self, visitor):
        tab = await visitor.tab()
        await tab.say(TRIP)
        await tab.is_quiet(2)
        groups = tab.page.locator(".group h3")
        before = ["What you are looking for", "Your trip", "Day by day", "Our talk"]
        await expect(groups).to_have_text(before)
        trip = tab.page.locator(".group", has_text="Your trip")
        await expect(trip.locator("dt")).to_have_text(
            ["Where", "Days", "Pace", "Interests", "Budget"]
        )
        await expect(trip.locator("dd").first).to_have_text("Jaipur")
        raw = tab.page.locator("#raw-state")
        await expect(raw).to_be_hidden()
        await tab.page.get_by_text("Show it as it is stored").click()
        await expect(raw).to_be_visible()
        await expect(raw).to_contain_text('"duration_days": 4')
        shown = json.loads(await raw.text_content() or "")
        await tab.page.reload()
        await expect(groups).to_have_text(before)
        # Redis has its keys in no order.
        assert json.loads(await raw.text_content() or "") == shown


async def full(visitor: Visitor) -> Tab:
    """Open a page with more messages than fit."""
    tab = await visitor.tab()
    await tab.say(HOTEL)
    await tab.is_quiet(2)
    for _ in range(5):
        await post(visitor, HOTEL)
    await tab.is_quiet(12)
    return tab


async def post(visitor: Visitor, text: str) -> None:
    """Say something by another client of the same visitor."""
    await visitor.context.request.post(f"{visitor.site.url}/api/messages", data={"text": text})


async def scrolled(page: Page) -> float:
    """Return how far from the end the page is, in pixels."""
    far: float = await page.evaluate("-document.getElementById('transcript').scrollTop")
    return far


async def scroll_up(page: Page) -> float:
    """Scroll to about the middle, and return where the first message is then."""
    await page.evaluate("document.getElementById('transcript').scrollTop = -600")
    return await top_of_first(page)


async def top_of_first(page: Page) -> float:
    script = "document.querySelector('.message').getBoundingClientRect().top"
    top: float = await page.evaluate(script)
    return round(top)


async def direction(element: Locator) -> str:
    shown: str = await element.evaluate("element => getComputedStyle(element).direction")
    return shown


async def expect_local_times(tab: Tab) -> None:
    for time in await tab.messages.locator("time").all():
        said_at = datetime.fromisoformat(await time.get_attribute("datetime") or "")
        await expect(time).to_contain_text(f"{said_at.astimezone(ZoneInfo('Asia/Kolkata')):%H:%M}")
    assert await tab.messages.locator("time").count() == 2


def empty(server: Server) -> None:
    with Redis(port=server.port) as client:
        client.flushall()
