"""Somebody with a real browser on a real server that runs the example."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.support.example_site import ExampleSite
from tests.support.servers import Server

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic"),
]
PATIENCE = 30_000  # milliseconds
# Width, height and colours.
LOOKS = {
    "desktop-light": (1280, 800, "light"),
    "desktop-dark": (1280, 800, "dark"),
    "phone-light": (390, 844, "light"),
    "phone-dark": (390, 844, "dark"),
}
TRIP = "A 4 day trip to Jaipur, relaxed, we love food and forts, under $500"
HOTEL = "A boutique hotel in Paris"

expect.set_options(timeout=PATIENCE)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests of a folder; it lives in one event loop."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the browser test did not run")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@asynccontextmanager
async def outage(tab: "Tab", server: Server) -> AsyncIterator[None]:
    """Say something, and something else when Redis does not answer any more. It does so again
    after the block, and the page says so."""
    await tab.say(HOTEL)
    await tab.is_quiet(2)
    server.freeze()
    try:
        await tab.say("under $90")
        await expect(tab.banner).to_contain_text("not available")
        await tab.is_quiet(4)
        yield
    finally:
        server.thaw()
    await expect(tab.banner).to_have_count(0, timeout=2 * PATIENCE)


def example_on(server: Server, log: Path, pause: float) -> ExampleSite:
    """The example, with words that come slowly enough to be watched."""
    options = {"REDIS_URL": f"redis://127.0.0.1:{server.port}/0", "REDIS_TIMEOUT": "5"}
    env = {"CONVERSATION_STATE_BACKEND": "redis", "CONCIERGE_PAUSE": str(pause), **options}
    return ExampleSite(log, **env)


class Visitor:
    """Somebody with a browser."""

    def __init__(self, context: BrowserContext, site: ExampleSite, album: Path) -> None:
        self.context = context
        self.site = site
        self.album = album
        self.complaints: list[str] = []

    async def tab(self, *, is_live: bool = True) -> "Tab":
        """Open a page. Its websocket has given the cookie when this returns, so that the next page
        sends it, too."""
        page = await self.context.new_page()
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab = Tab(page, self.album)
        await page.goto(self.site.url)
        if is_live:
            await asyncio.wait_for(tab.is_ready.wait(), PATIENCE / 1000)
        return tab

    def _note(self, message: Any) -> None:
        # That a server was away is told there, too.
        if message.type == "error" and "net::ERR" not in message.text:
            self.complaints.append(message.text)


class Tab:
    """A page that is open, and what went over the wire for it."""

    def __init__(self, page: Page, album: Path) -> None:
        self.page = page
        self.album = album
        self.posted: list[str] = []
        self.frames: list[str] = []
        self.is_ready = asyncio.Event()
        page.on("request", self._note_request)
        page.on("websocket", lambda socket: socket.on("framereceived", self._note_frame))
        self.live = page.locator(".message.live .text")
        self.typing = page.locator("#typing")
        self.messages = page.locator(".message:not(.live)")
        self.said = self.messages.locator(".text")
        self.interrupted = self.messages.locator(".interrupted")
        self.banner = page.locator("#banner p")
        self.notice = page.locator("#notice")
        self.below = page.locator("#below")
        self.stop = page.locator("#stop")
        self.new = page.locator("#new-form button")
        self.undo = page.locator("#undo button")

    def _note_request(self, request: Any) -> None:
        if request.method == "POST":
            self.posted.append(request.url.partition("/api/")[2])

    def _note_frame(self, frame: str | bytes) -> None:
        self.frames.append(str(frame))
        if '"type": "ready"' in self.frames[-1]:
            self.is_ready.set()

    async def say(self, text: str) -> None:
        await self.page.fill("#text", text)
        await self.page.keyboard.press("Enter")

    async def picture(self, name: str) -> None:
        await self.page.screenshot(path=self.album / f"{name}.png")

    async def is_quiet(self, count: int) -> None:
        """Wait until `count` messages are there, and none is in the making."""
        await expect(self.messages).to_have_count(count)
        await expect(self.live).to_have_count(0)
        await expect(self.typing).to_be_hidden()


async def grows(tab: Tab) -> None:
    """Wait until an answer is seen that is longer than it was."""
    await expect(tab.live).to_have_count(1)
    words = len((await tab.live.text_content() or "").split())
    await expect(tab.live).to_have_text(re.compile(rf"(\S+\s+){{{words + 2}}}"))
