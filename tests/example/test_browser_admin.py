"""`make demo-database` in a real browser: its list of conversations, and its admin."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Browser, Page, expect

from tests.example.test_browser_accessible import OVERFLOW, every_look
from tests.support.chromium import HOTEL, TRIP, Visitor
from tests.support.example_site import DatabaseSite

# One browser for all tests, which lives in one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

SCRIPT = "<script>document.title = 'cracked'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def database_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseSite]:
    log = tmp_path_factory.mktemp("database") / "log"
    with DatabaseSite(log, CONCIERGE_PAUSE="0.005") as site:
        yield site


@pytest.fixture
def site(database_site: DatabaseSite) -> DatabaseSite:
    return database_site


@pytest_asyncio.fixture(loop_scope="session")
async def admin(visitor: Visitor, site: DatabaseSite) -> AsyncIterator[Page]:
    """The list of conversations in the admin, of which one was talked in."""
    tab = await visitor.tab()
    await tab.say(TRIP)
    await tab.is_quiet(2)
    await tab.say(SCRIPT)
    await tab.is_quiet(4)
    page = await visitor.context.new_page()
    dialogs: list[Any] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog))
    await page.goto(f"{site.url}/admin/convstate_database/conversation/")
    await page.fill("#id_username", site.told("user name"))
    await page.fill("#id_password", site.told("password"))
    await page.click("[type=submit]")
    await expect(page.locator("#result_list")).to_be_visible()
    yield page
    assert dialogs == []


async def check(page: Page, album: Path, name: str) -> None:
    """Look at a page of the admin, and at what is ours on it."""
    await page.screenshot(path=album / f"{name}.png", full_page=True)
    found: Any = (await Axe().run(page, context=".convstate-contents")).response["violations"]
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found] == []
    assert await page.evaluate(OVERFLOW) <= 0


@every_look
async def test_a_conversation_is_looked_at(admin, visitor, site):
    assert await admin.evaluate(OVERFLOW) <= 0
    await admin.screenshot(path=visitor.album / "20-list.png")
    await admin.locator("#result_list tbody a").first.click()
    said = admin.locator(".convstate-text")
    await expect(said).to_have_count(4)
    await expect(said.first).to_have_text(TRIP)
    await expect(said.nth(2)).to_have_text(SCRIPT)
    assert "cracked" not in await admin.title()
    await admin.get_by_text("Further fields").first.click()
    await check(admin, visitor.album, "21-conversation")
    await admin.get_by_role("link", name="History").click()
    await expect(admin.locator("#change-history")).to_contain_text("messages 1 to 4")


async def test_a_long_one_has_pages(admin, visitor, site):
    for _ in range(25):
        await visitor.context.request.post(f"{site.url}/api/messages", data={"text": HOTEL})
    await admin.reload()
    await admin.locator("#result_list tbody a").first.click()
    pages = admin.get_by_role("navigation", name="Pages, above")
    await expect(pages).to_contain_text("5 to 54 of 54")
    await check(admin, visitor.album, "22-pages")
    await pages.get_by_role("link", name="Older").click()
    await expect(pages).to_contain_text("1 to 4 of 54")
    await expect(admin.locator(".convstate-text").first).to_have_text(TRIP)
    await pages.get_by_role("link", name="Newest").click()
    await expect(pages).to_contain_text("5 to 54 of 54")


async def test_one_that_is_deleted_there_is_gone_here(admin, visitor, site):
    tab = await visitor.tab()
    await tab.is_quiet(4)
    await admin.locator("#result_list tbody a").first.click()
    await admin.locator(".deletelink").click()
    await expect(admin.locator("#content")).to_contain_text("Messages: 4")
    await admin.get_by_role("button", name="Yes").click()
    await expect(admin.locator(".messagelist")).to_contain_text("deleted successfully")
    await tab.page.reload()
    await expect(tab.notice).to_contain_text("is gone")
    await expect(tab.page.locator("#conversation-list button")).to_have_count(0)


@pytest.mark.slow
async def test_conversations_outlive_the_server_and_the_password_does_not(
    browser: Browser, tmp_path: Path
) -> None:
    with DatabaseSite(tmp_path / "log", CONCIERGE_PAUSE="0") as site:
        context = await browser.new_context()
        visitor = Visitor(context, site, tmp_path)
        tab = await visitor.tab()
        await tab.say(HOTEL)
        await tab.is_quiet(2)
        before = site.told("password")
        site.restart()
        assert site.told("password") != before
        await tab.page.reload()
        await tab.is_quiet(2)
        await expect(tab.page.locator("#conversation-list button")).to_have_text([HOTEL])
        await expect(tab.page.locator("#expiry")).to_contain_text("29 days")
        for password, answer in ((before, "correct"), (site.told("password"), "Conversations")):
            page = await context.new_page()
            await page.goto(f"{site.url}/admin/")
            await page.fill("#id_username", "demo")
            await page.fill("#id_password", password)
            await page.click("[type=submit]")
            await expect(page.locator("#content")).to_contain_text(answer)
        await expect(page.locator("#content")).not_to_contain_text("Users")
        await context.close()
