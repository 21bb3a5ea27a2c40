"""Fixtures for the tests of conversations."""

import threading
from collections.abc import Iterator

import pytest

from django_convstate import (
    ConversationStore,
)
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.conversation.wakeups import _queues


@pytest.fixture
def memory() -> ConversationStore:
    return ConversationStore(LocMemBackend())


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert _queues == {}
    assert not [t for t in threading.enumerate() if t.name == "convstate-turn"]
