"""Fixtures for the tests of requests."""

from collections.abc import Callable

import pytest

from tests.support.browsers import Browser


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged by us."""
    return lambda: [r.getMessage() for r in caplog.records if r.name == "django_convstate"]


@pytest.fixture
def browser(way: str) -> Browser:
    return Browser(way)
