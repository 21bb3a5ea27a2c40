from collections.abc import Callable, Iterator

import pytest

from django_convstate import ConversationStore
from django_convstate.ids import new_id
from tests.support.archives import store_on


@pytest.fixture
def make_store(request: pytest.FixtureRequest) -> Iterator[Callable[[str], ConversationStore]]:
    """Makes an empty store on a place, which is made ready for use."""
    made: list[ConversationStore] = []

    def make(place: str) -> ConversationStore:
        if place in ("standalone", "failover"):
            request.getfixturevalue("valkey")
        elif place in ("sqlite", "postgres"):
            # Both begin before either is used: to begin one blocks the databases.
            for name in ("_sqlite", "_postgres"):
                request.getfixturevalue(name)
            request.getfixturevalue(place)
        made.append(store_on(place, f"test-{new_id()}".replace("_", "-")))
        return made[-1]

    yield make
    for store in made:
        if store.backend.name == "redis":  # the others are emptied anyway
            store.purge(everything=True)
        store.close()
