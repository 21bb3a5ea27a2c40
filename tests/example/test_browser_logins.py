"""Logins, logouts and shared browsers in a real browser, on a server with a database of users."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.support.programs import serving
from tests.support.servers import free_ports

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server."""
    files, (port,) = tmp_path_factory.mktemp("logins"), free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = ["-m", "uvicorn", "--port", str(port), "tests.support.login_site:application"]
    with serving(url, files / "log", *command, CONVSTATE_TEST_FILES=str(files)):
        yield url


class Visitor:
    """A browser of somebody's own."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url

    async def tab(self) -> "Tab":
        """Open a page, whose websocket is open when this returns."""
        tab = Tab(await self.context.new_page())
        await tab.page.goto(self.url)
        await expect(tab.socket).to_have_text("open")
        return tab

    async def token(self) -> str:
        cookies: Any = await self.context.cookies()
        return next((c["value"] for c in cookies if c["name"] == "conversation"), "")

    async def plant(self, token: str) -> None:
        await self.context.add_cookies([{"name": "conversation", "value": token, "url": self.url}])


class Tab:
    """A page that is open."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.who = page.locator("#who")
        self.said = page.locator("#said li")
        self.socket = page.locator("#socket")

    async def say(self, text: str) -> None:
        await self.page.fill("#text", text)
        await self.page.press("#text", "Enter")
        await expect(self.said.last).to_have_text(text)
        await expect(self.socket).to_have_text("open")

    async def log_in(self, name: str) -> None:
        await self.page.fill("#name", name)
        await self.page.press("#name", "Enter")
        await expect(self.who).to_have_text(name)
        await expect(self.socket).to_have_text("open")

    async def log_out(self) -> None:
        await self.page.click("#logout")
        await expect(self.who).to_have_text("nobody")
        await expect(self.socket).to_have_text("open")

    async def shows(self, *texts: str) -> None:
        await expect(self.said).to_have_text(list(texts))

    async def reload(self) -> None:
        await self.page.reload()
        await expect(self.socket).to_have_text("open")


@pytest_asyncio.fixture(loop_scope="session")
async def visitors(browser: Browser, site: str) -> AsyncIterator[list[Visitor]]:
    """Two persons with a browser each."""
    contexts = [await browser.new_context() for _ in range(2)]
    yield [Visitor(context, site) for context in contexts]
    for context in contexts:
        await context.close()


async def test_a_login_keeps_what_was_said_and_a_logout_ends_it(visitors: list[Visitor]) -> None:
    tab = await visitors[0].tab()
    await tab.say("before")
    await tab.log_in("olga")
    await tab.shows("before")
    await tab.say("after")
    await tab.shows("before", "after")
    await tab.log_out()
    await tab.shows()


async def test_the_next_person_at_a_browser_begins_anew(visitors: list[Visitor]) -> None:
    tab = await visitors[0].tab()
    await tab.log_in("olga")
    await tab.say("secret of olga")
    await tab.log_out()
    await tab.say("by nobody")
    await tab.log_in("mallory")
    await tab.shows("by nobody")
    await tab.say("by mallory")
    await tab.shows("by nobody", "by mallory")
    await tab.log_in("olga")
    await tab.shows()


async def test_without_a_logout_too(visitors: list[Visitor]) -> None:
    tab = await visitors[0].tab()
    await tab.log_in("olga")
    await tab.say("secret of olga")
    await visitors[0].context.clear_cookies(name="sessionid")
    await tab.reload()
    await expect(tab.who).to_have_text("nobody")
    await tab.shows()


async def test_two_tabs_are_of_one_conversation_until_the_logout(visitors: list[Visitor]) -> None:
    one = await visitors[0].tab()
    await one.log_in("olga")
    await one.say("hello")
    two = await visitors[0].tab()
    await two.shows("hello")
    await one.say("to the other tab")
    await two.shows("hello", "to the other tab")
    await one.log_out()
    await expect(two.socket).to_have_text("closed")
    await one.say("by nobody")
    await two.shows("hello", "to the other tab")
    await two.reload()
    await two.shows("by nobody")


async def test_a_planted_cookie_is_of_no_use(visitors: list[Visitor]) -> None:
    olga, mallory = visitors
    his = await mallory.tab()
    await his.say("planted")
    hers = await olga.tab()
    await hers.log_in("olga")
    await olga.plant(await mallory.token())
    await hers.reload()
    await hers.shows()
    await hers.say("secret of olga")
    await his.shows("planted")
    await his.reload()
    await his.shows("planted")
    assert await olga.token() != await mallory.token()


async def test_nor_is_one_that_was_planted_before_the_login(visitors: list[Visitor]) -> None:
    olga, mallory = visitors
    his = await mallory.tab()
    await his.say("planted")
    await olga.plant(await mallory.token())
    hers = await olga.tab()
    await hers.log_in("olga")
    await hers.say("secret of olga")
    await his.shows("planted")
    await expect(his.socket).to_have_text("closed")
    await his.reload()
    await his.shows()


async def test_nor_is_a_stolen_one(visitors: list[Visitor]) -> None:
    olga, mallory = visitors
    hers = await olga.tab()
    await hers.log_in("olga")
    await hers.say("secret of olga")
    await mallory.plant(await olga.token())
    his = await mallory.tab()
    await his.shows()
    await his.say("by nobody")
    await his.log_in("mallory")
    await his.say("by mallory")
    await hers.reload()
    await hers.shows("secret of olga")
