"""The example in a real browser: what a visitor sees while words come, tabs open and servers go."""

import asyncio

import pytest
from playwright.async_api import expect

from tests.support.chromium import HOTEL, TRIP, grows, outage

# One browser for all tests, which lives in one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

# Seconds after which Daphne 4.2 has forgotten a connection that is over. It asks each that it has
# not, when it stops, for its application, and finding none tells no application that it stops.
REAPED = 1.5
LOOKS = ("desktop-light", "phone-dark")


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
async def test_a_conversation_streams_survives_reload_and_restart(visitor, own_site):
    one = await visitor.tab()
    await one.picture("1-welcome")
    await one.page.click(f"text={TRIP}")
    await expect(one.said).to_have_text([TRIP])
    await grows(one)
    await one.picture("2-streaming")

    # Reloads in the middle of the answer: what was said is there, and the answer goes on.
    await one.page.reload()
    await expect(one.said.first).to_have_text(TRIP)
    await grows(one)
    await one.picture("3-reloaded")
    await one.is_quiet(2)
    await expect(one.said.nth(1)).to_contain_text("4 relaxed days in Jaipur")
    await one.picture("4-answered")

    two = await visitor.tab()
    await expect(two.said).to_have_count(2)
    await one.say(HOTEL)
    await grows(two)
    await two.picture("5-second-tab")
    await two.is_quiet(4)
    await one.is_quiet(4)
    assert await one.said.all_text_contents() == await two.said.all_text_contents()

    # The server stops in the middle of an answer, and is started again.
    await one.say(TRIP)
    await grows(one)
    await asyncio.sleep(REAPED)
    own_site.stop()
    await expect(one.banner).to_contain_text("line to the concierge is down")
    await one.picture("6-server-away")
    own_site.start()
    for tab in (one, two):
        await tab.is_quiet(6)
        await expect(tab.banner).to_have_count(0)
        await expect(tab.interrupted).to_have_count(1)
    await one.picture("7-interrupted")
    await one.say("under $200")
    await two.is_quiet(8)
    await one.is_quiet(8)
    assert one.posted == two.posted == []
    assert any('"type": "answer"' in frame for frame in one.frames)


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
async def test_an_outage_of_redis_shows_a_banner_and_the_chat_goes_on(visitor, server, own_site):
    """Redis does not answer, the chat goes on, and a banner says so for as long as it lasts."""
    own_site.restart(REDIS_TIMEOUT="0.25")
    tab = await visitor.tab()
    async with outage(tab, server):
        await tab.picture("8-degraded")
        await tab.page.reload()
        await expect(tab.banner).to_contain_text("not available")
        await expect(tab.messages).to_have_count(4)
    await tab.say("thanks")
    await tab.is_quiet(6)
    await expect(tab.notice).to_be_hidden()  # it is the same conversation
    await tab.picture("9-after-the-outage")


@pytest.mark.slow
async def test_two_tabs_that_speak_at_once_are_answered_one_after_the_other(visitor):
    one, two = await visitor.tab(), await visitor.tab()
    await one.say(TRIP)
    await two.say(HOTEL)
    for tab in (one, two):
        await tab.is_quiet(4)
    said = await one.said.all_text_contents()
    assert sorted(said[::2]) == sorted([TRIP, HOTEL])
    assert await two.said.all_text_contents() == said
    who = await one.page.eval_on_selector_all(".message", "all => all.map(m => m.classList[1])")
    assert who == ["user", "assistant"] * 2


async def test_a_second_message_during_an_answer_is_answered_next(visitor):
    tab = await visitor.tab()
    await tab.say(TRIP)
    await grows(tab)
    await tab.say(HOTEL)
    await expect(tab.said).to_have_text([TRIP, HOTEL])
    await tab.is_quiet(4)
    before = await tab.said.all_text_contents()
    assert before[::2] == [TRIP, HOTEL]
    await tab.page.reload()
    await tab.is_quiet(4)
    assert await tab.said.all_text_contents() == before


async def test_a_tab_shows_what_was_posted_by_http(visitor):
    one, two = await visitor.tab(), await visitor.tab()
    await one.say(HOTEL)
    await two.is_quiet(2)
    await visitor.context.request.post(f"{visitor.site.url}/api/messages", data={"text": "thanks"})
    for tab in (one, two):
        await tab.is_quiet(4)


@pytest.mark.slow
async def test_messages_missed_offline_are_shown_on_reconnect(visitor, own_site):
    tab = await visitor.tab()
    await tab.say(HOTEL)
    await tab.is_quiet(2)
    await visitor.context.set_offline(True)
    own_site.stop()
    await expect(tab.banner).to_have_count(1)
    own_site.start()
    await visitor.context.request.post(f"{own_site.url}/api/messages", data={"text": "thanks"})
    await visitor.context.set_offline(False)
    await tab.is_quiet(4)
    await expect(tab.banner).to_have_count(0)


async def test_a_new_conversation_begins_in_all_tabs(visitor):
    one, two = await visitor.tab(), await visitor.tab()
    await one.say(HOTEL)
    await two.is_quiet(2)
    await one.page.click("#new-form button")
    for tab in (one, two):
        await expect(tab.messages).to_have_count(0)
        await expect(tab.page.locator("#welcome")).to_be_visible()
    await expect(two.notice).to_contain_text("Another tab has begun a new conversation")
    await expect(one.notice).to_be_hidden()
    await two.say(TRIP)
    for tab in (one, two):
        await tab.is_quiet(2)


@pytest.mark.slow
async def test_the_next_message_after_expiry_begins_a_new_conversation(visitor, own_site):
    own_site.stop()
    own_site.environment |= {"CONVERSATION_TTL": "4", "CONCIERGE_PAUSE": "0.005"}
    own_site.start()
    tab = await visitor.tab()
    await tab.say(HOTEL)
    await tab.is_quiet(2)
    await expect(tab.notice).to_contain_text("has expired")
    await tab.say("thanks")
    await expect(tab.notice).to_contain_text("this is a new one")
    await expect(tab.messages).to_have_count(2)
    await expect(tab.said.first).to_have_text("thanks")


class TestFallback:
    @pytest.mark.slow
    async def test_server_sent_events_replace_a_blocked_websocket(self, visitor):
        await visitor.context.route_web_socket("**/live*", lambda socket: socket.close())
        one = await visitor.tab(is_live=False)
        two = await visitor.tab(is_live=False)
        await one.say(TRIP)
        await grows(one)
        await one.is_quiet(2)
        await two.is_quiet(2)
        await one.say(HOTEL)
        await one.is_quiet(4)
        assert one.posted == ["stream", "stream"]
        assert one.frames == []

    @pytest.mark.slow
    async def test_a_plain_post_replaces_blocked_streams(self, visitor):
        await visitor.context.route_web_socket("**/live*", lambda socket: socket.close())
        await visitor.context.route("**/api/stream", lambda route: route.abort())
        tab = await visitor.tab(is_live=False)
        for count, text in enumerate((HOTEL, "under $90"), 1):
            await tab.say(text)
            await tab.is_quiet(2 * count)
        said = await tab.said.all_text_contents()
        assert said[::2] == [HOTEL, "under $90"]
        assert tab.posted == ["stream", "messages"] * 2

    @pytest.mark.slow
    async def test_text_is_not_lost_while_the_server_is_away(self, visitor, own_site):
        tab = await visitor.tab()
        await tab.say(HOTEL)
        await tab.is_quiet(2)
        own_site.stop()
        await tab.say("under $90")
        await expect(tab.notice).to_contain_text("does not answer")
        await expect(tab.page.locator("#text")).to_have_value("under $90")
        await tab.is_quiet(2)
        own_site.start()
        await expect(tab.banner).to_have_count(0)
        await tab.page.keyboard.press("Enter")
        await tab.is_quiet(4)

    async def test_the_page_works_without_scripts(self, browser, site, tmp_path):
        context = await browser.new_context(java_script_enabled=False)
        page = await context.new_page()
        await page.goto(site.url)
        await page.fill("#text", HOTEL)
        await page.click("#send")
        await expect(page.locator(".message .text")).to_have_count(2)
        await context.close()
