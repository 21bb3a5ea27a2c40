"""Fixtures for the tests of consumers."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.layers import channel_layers

from django_convstate.layer import breaker
from tests.support.consumers import Chat, SyncChat
from tests.support.tabs import IN_MEMORY, Browser


@pytest.fixture(autouse=True)
def _layer(settings: Any) -> Any:
    settings.CHANNEL_LAYERS = IN_MEMORY
    yield
    channel_layers.backends = {}
    breaker.begin_anew()


@pytest.fixture(params=[Chat, SyncChat], ids=["async", "sync"])
async def browser(request: pytest.FixtureRequest) -> AsyncIterator[Browser]:
    browser = Browser(request.param)
    yield browser
    await browser.leave()
