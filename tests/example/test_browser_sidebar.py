"""The example's list of conversations in a real browser, on a desktop and on a phone."""

import re

import pytest
from playwright.async_api import Locator, expect

from tests.example.test_browser_accessible import accessible, every_look
from tests.support.chromium import HOTEL, TRIP, Tab, grows

# One browser for all tests, which lives in one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

SHOES = "Nike running shoes for women under $80"


def listed(tab: Tab) -> Locator:
    return tab.page.locator("#conversation-list button")


async def talk(tab: Tab, *texts: str) -> None:
    """Begin a conversation for each text."""
    for number, text in enumerate(texts):
        if number:
            await tab.new.click()
            await expect(tab.messages).to_have_count(0)
        await tab.say(text)
        await tab.is_quiet(2)


async def unfold(tab: Tab, look: str) -> None:
    """Have the list seen, which there is room for on a desktop."""
    if look.startswith("phone"):
        await tab.page.get_by_role("button", name="Chats").click()


@every_look
async def test_one_goes_from_one_conversation_to_another(visitor, look):
    tab = await visitor.tab()
    await unfold(tab, look)
    await expect(tab.page.get_by_text("None yet.")).to_be_visible()
    await accessible(tab, "15-no-conversations")
    await tab.page.keyboard.press("Escape")
    await talk(tab, TRIP, HOTEL)
    await expect(listed(tab)).to_have_count(2)
    await unfold(tab, look)
    await expect(listed(tab).first).to_be_visible()
    await accessible(tab, "16-conversations")
    await listed(tab).filter(has_text="A 4 day trip").click()
    await expect(tab.said.first).to_have_text(TRIP)
    await tab.is_quiet(2)
    await expect(tab.page.locator("#text")).to_be_focused()
    current = tab.page.locator("#conversation-list [aria-current]")
    await expect(current).to_have_count(1)
    await expect(current).to_contain_text("A 4 day trip")
    await accessible(tab, "17-opened")
    await tab.say("make it 3 days")
    await tab.is_quiet(4)
    await tab.page.reload()
    await tab.is_quiet(4)
    await expect(tab.said.first).to_have_text(TRIP)


async def test_the_list_follows_what_is_said_in_other_tabs(visitor):
    one, two = await visitor.tab(), await visitor.tab()
    await one.say("hello")
    for tab in (one, two):
        await tab.is_quiet(2)
        await expect(listed(tab)).to_have_text(["Untitled"])
    await two.say(SHOES)
    for tab in (one, two):
        await tab.is_quiet(4)
        await expect(listed(tab)).to_have_text([SHOES])
    await one.new.click()
    await expect(two.messages).to_have_count(0)
    await listed(two).first.click()
    for tab in (one, two):
        await tab.is_quiet(4)
    await expect(one.notice).to_have_text("Another tab has opened this conversation.")


async def test_an_answer_that_is_left_is_stopped_and_kept(visitor):
    tab = await visitor.tab()
    await talk(tab, HOTEL, "hello")
    await tab.say(TRIP)
    await grows(tab)
    await listed(tab).filter(has_text=HOTEL).click()
    await expect(tab.said.first).to_have_text(HOTEL)
    await tab.is_quiet(2)
    await listed(tab).filter(has_text="A 4 day trip").click()
    await tab.is_quiet(4)
    await expect(tab.interrupted).to_have_text("You stopped this answer.")


async def test_the_keyboard_keeps_its_place_while_the_list_changes(visitor):
    one, two = await visitor.tab(), await visitor.tab()
    await talk(one, HOTEL, SHOES)
    await listed(one).filter(has_text=HOTEL).focus()
    await two.say("thanks")
    for tab in (one, two):
        await tab.is_quiet(4)
    await expect(listed(one).filter(has_text=HOTEL)).to_be_focused()
    await one.page.keyboard.press("Enter")
    await expect(one.said.first).to_have_text(HOTEL)


async def test_a_conversation_that_is_gone_is_said_to_be(visitor):
    tab = await visitor.tab()
    await talk(tab, HOTEL, SHOES)
    await listed(tab).filter(has_text=HOTEL).evaluate("button => button.value = 'gone'")
    await listed(tab).filter(has_text=HOTEL).click()
    await expect(tab.notice).to_have_text("That conversation is not there any more.")
    await expect(tab.said.first).to_have_text(SHOES)
    assert "404" in visitor.complaints.pop()  # so says the browser itself


async def test_it_works_without_scripts(browser, site):
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(site.url)
    for text in (HOTEL, SHOES):
        await page.fill("#text", text)
        await page.click("#send")
        await expect(page.locator(".message .text")).to_have_count(2)
        if text == HOTEL:
            await page.get_by_role("button", name=re.compile("^New")).click()
            await expect(page.locator(".message .text")).to_have_count(0)
    await page.get_by_role("navigation").get_by_role("button", name=HOTEL).click()
    await expect(page.locator(".message .text").first).to_have_text(HOTEL)
    await context.close()
