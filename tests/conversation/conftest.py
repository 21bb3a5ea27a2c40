"""Fixtures for the tests of conversations."""

from collections.abc import Iterator

import pytest

from django_convstate import (
    ConversationStore,
)
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.conversation.wakeups import _queues
from tests.support.servers import no_thread_of_ours_is_left, wait_until


@pytest.fixture
def memory() -> ConversationStore:
    return ConversationStore(LocMemBackend())


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert _queues == {}
    wait_until(no_thread_of_ours_is_left)
