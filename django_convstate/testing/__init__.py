"""Help for tests: of projects that keep conversations (docs/testing.md), and of backends.

    from django_convstate.testing import ConversationTestMixin, assert_store_calls, clock, seed

`BackendContract` is the contract that every backend keeps, as tests that its author can run:

    class TestMyBackend(BackendContract):
        def make_backend(self, **options):
            return MyBackend(**options)

Pytest collects it as it is; for unittest put `unittest.TestCase` beside it. Each test runs twice,
once with the methods and once with their asyncio twins.
"""

from .calls import assert_store_calls
from .contract import BackendContract
from .isolation import empty_store
from .mixin import ConversationTestMixin
from .moving import clock
from .outage import store_away
from .seeding import aseed, seed

__all__ = [
    "BackendContract",
    "ConversationTestMixin",
    "aseed",
    "assert_store_calls",
    "clock",
    "empty_store",
    "seed",
    "store_away",
]
