"""The example in a browser, and what django-convstate has for the tests of projects.

Screenshots go to the directory that CONVSTATE_SCREENSHOTS names, else to pytest's own.
"""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from _django_convstate_pytest import empty_conversations
from tests.support.chromium import LOOKS, Visitor, browser, example_on
from tests.support.example_site import ExampleSite
from tests.support.servers import Server, free_ports, running

__all__ = ["browser", "empty_conversations"]


@pytest.fixture(scope="session")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExampleSite]:
    """For tests that leave it as it is."""
    directory = tmp_path_factory.mktemp("example")
    server = Server(directory, free_ports(1)[0])
    with running([server]), example_on(server, directory / "log", pause=0.02) as site:
        yield site


@pytest.fixture
def own_site(server: Server, tmp_path: Path) -> Iterator[ExampleSite]:
    """For a test that stops it, or its Valkey."""
    with example_on(server, tmp_path / "log", pause=0.05) as site:
        yield site


@pytest.fixture
def site(request: pytest.FixtureRequest) -> ExampleSite:
    name = "own_site" if "own_site" in request.fixturenames else "shared_site"
    site: ExampleSite = request.getfixturevalue(name)
    return site


@pytest.fixture
def look() -> str:
    return "desktop-light"


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(
    browser: Browser, site: ExampleSite, look: str, tmp_path: Path
) -> AsyncIterator[Visitor]:
    """Whose page complains of nothing: no error in a script, nothing that the policy forbids."""
    width, height, scheme = LOOKS[look]
    context = await browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        has_touch=width < 600,
        permissions=["clipboard-read", "clipboard-write"],
        locale="en-GB",
        timezone_id="Asia/Kolkata",  # half an hour off, which no server is by chance
    )
    album = Path(os.environ.get("CONVSTATE_SCREENSHOTS", tmp_path)) / look
    visitor = Visitor(context, site, album)
    yield visitor
    await context.close()
    assert visitor.complaints == []
