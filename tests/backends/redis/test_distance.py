"""A server that is far away is used as long as each of its answers comes in time, and where it is
further, what is to be set is said."""

import asyncio
import importlib.metadata
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme

from django_convstate import BackendUnavailable
from django_convstate.backends.records import Change
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.redis.client.config import ServerConfig
from django_convstate.backends.redis.diagnostics.checks import check_server
from django_convstate.ids import new_id
from tests.chaos.proxy import Proxy
from tests.support.messages import pairs
from tests.support.places import on
from tests.support.ruler import Stopwatch, limit
from tests.support.servers import SERVICE, Server, free_ports, sentinel_setup
from tests.support.tls import tls_proxy

CLUSTER = "django_convstate.backends.redis.cluster.ClusterConnectionFactory"
FAR = 0.5  # of the time for an answer: to connect takes more than one, and two are too long


@pytest.fixture
def within() -> float:
    """More than the default, and more again on a slow machine: what is left of it after a delay has
    to do for what that machine is busy with."""
    return limit(0.7)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


def use(backend: RedisBackend, in_loop: bool) -> None:
    """Do what a process does from its first request on: nothing of it may fail."""
    ids = [new_id() for _ in range(2)]

    async def visit() -> None:
        for id in ids:
            await backend.acommit(id, Change(owner="u", append=pairs(b"{}")))
            assert await backend.aload(id, 5) is not None
        await asyncio.gather(*(backend.aload(id, 5) for id in ids))
        assert (await backend.ahealth()).connected
        await backend.aclose()

    if in_loop:
        asyncio.run(visit())
        return
    for id in ids:
        backend.commit(id, Change(owner="u", append=pairs(b"{}")))
        assert backend.load(id, 5) is not None
    assert backend.health().connected


in_both = pytest.mark.parametrize("in_loop", [False, True], ids=["sync", "async"])


@in_both
@pytest.mark.parametrize("database", [0, 1])
def test_a_server_is_used_from_the_first_operation_on(
    settings: Any, server: Server, proxy: Proxy, within: float, in_loop: bool, database: int
) -> None:
    with server.client() as client:
        client.config_set("requirepass", "secret")
    url = f"redis://:secret@127.0.0.1:{proxy.port}/{database}"
    backend = on(settings, url, within=within)
    proxy.delay = FAR * within
    use(backend, in_loop)
    assert proxy.accepted <= (2 if in_loop else 1), "connections are kept"
    backend.close()


@in_both
def test_a_server_behind_tls_is_used(
    settings: Any, server: Server, within: float, in_loop: bool, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    pool = {"ssl_ca_certs": str(tmp_path / "ca.pem")}
    with tls_proxy(server.port, context) as port, Proxy(port) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0"
        backend = on(settings, url, within=within, CONNECTION_POOL_KWARGS=pool)
        # The proxy holds up packets one after the other: the end of TLS's handshake, and the login.
        proxy.delay = 0.2 * within
        use(backend, in_loop)
        backend.close()


@in_both
def test_sentinels_and_their_primary_are_used(
    settings: Any, within: float, in_loop: bool, tmp_path: Path
) -> None:
    with sentinel_setup(tmp_path, free_ports(3)) as (_, _, sentinel), Proxy(sentinel.port) as proxy:
        backend = on(
            settings,
            f"redis://{SERVICE}/0",
            within=within,
            SENTINELS=[("127.0.0.1", proxy.port)] * 2,
        )
        proxy.delay = FAR * within
        use(backend, in_loop)
        backend.close()


@in_both
def test_a_cluster_is_discovered(
    settings: Any, cluster: list[Server], within: float, in_loop: bool
) -> None:
    with Proxy(cluster[0].port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        backend = on(settings, url, within=within, CONNECTION_FACTORY=CLUSTER)
        proxy.delay = 0.5 * within
        use(backend, in_loop)
        backend.close()


@in_both
def test_scripts_that_the_server_has_forgotten_are_sent_anew(
    settings: Any, server: Server, proxy: Proxy, within: float, in_loop: bool
) -> None:
    backend = on(settings, f"redis://127.0.0.1:{proxy.port}/0", within=within)
    proxy.delay = FAR * within

    async def visit() -> None:
        for _ in range(2):
            with server.client() as client:
                client.script_flush()
            await backend.acommit(new_id(), Change(append=pairs(b"{}")))
        await backend.aclose()

    if in_loop:
        asyncio.run(visit())
    for _ in range(2):
        with server.client() as client:
            client.script_flush()
        backend.commit(new_id(), Change(append=pairs(b"{}")))
    backend.close()


@in_both
def test_more_operations_than_connections_wait_for_a_far_server(
    settings: Any, proxy: Proxy, within: float, in_loop: bool
) -> None:
    """Which has not answered yet, because connections to it are being made."""
    pool = {"max_connections": 4}
    backend = on(
        settings,
        f"redis://127.0.0.1:{proxy.port}/1",
        within=within,
        CONNECTION_POOL_KWARGS=pool,
    )
    proxy.delay = FAR * within
    ids = [new_id() for _ in range(10)]

    async def visit() -> None:
        change = Change(append=pairs(b"{}"))
        await asyncio.gather(*(backend.acommit(id, change) for id in ids))
        await backend.aclose()

    if in_loop:
        asyncio.run(visit())
    else:
        with ThreadPoolExecutor(len(ids)) as threads:
            list(threads.map(lambda id: backend.commit(id, Change(append=pairs(b"{}"))), ids))
    assert all(map(backend.exists, ids))
    backend.close()


@in_both
def test_a_silent_server_costs_one_answer_and_no_more(
    settings: Any, server: Server, proxy: Proxy, within: float, in_loop: bool
) -> None:
    """Where it accepts connections, too, as one that is stopped does."""
    backend = on(settings, f"redis://127.0.0.1:{proxy.port}/0", within=within)
    proxy.silent = True

    async def fail() -> None:
        with pytest.raises(BackendUnavailable, match="SOCKET_TIMEOUT"):
            await backend.aload("a", 1)

    def visit() -> None:
        if in_loop:
            asyncio.run(fail())
            return
        with pytest.raises(BackendUnavailable, match="SOCKET_TIMEOUT"):
            backend.load("a", 1)

    with Stopwatch() as watch:
        visit()
    proxy.silent = False
    # Where the event loop is late, an operation of a task gets its time once more.
    assert watch.seconds < (3 if in_loop else 1.5) * within
    backend.close()


def test_a_server_too_far_away_is_told_with_what_to_set(settings: Any, proxy: Proxy) -> None:
    backend = on(settings, f"redis://127.0.0.1:{proxy.port}/0", within=0.25)
    proxy.delay = 0.4
    assert "SOCKET_TIMEOUT" in backend.health().detail
    found = {message.id: message for message in check_server("own")}
    message = found["convstate.W012"]
    assert "SOCKET_TIMEOUT is 250 ms" in message.msg
    suggested = float(str(message.hint).split("'] to ")[1].split(",")[0])
    assert suggested >= 3 * 0.4
    assert "convstate.W006" in found, "what the server says is checked nevertheless"
    backend.close()
    patient = on(settings, f"redis://127.0.0.1:{proxy.port}/0", within=max(suggested, limit(1.2)))
    use(patient, in_loop=False)
    assert "convstate.W012" not in {message.id for message in check_server("own")}
    patient.close()


@in_both
def test_a_new_connection_sends_no_more_than_its_login(
    settings: Any, server: Server, in_loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command would be a round trip more, and the version of redis-py is on the disk."""

    def version(name: str) -> str:
        read.append(name)
        return "1"

    read: list[str] = []
    backend = on(settings, f"redis://127.0.0.1:{server.port}/0")
    assert backend.shard_of("a") is None  # by which the entry is read
    with server.client() as client, client.monitor() as monitor:
        monkeypatch.setattr(importlib.metadata, "version", version)
        if in_loop:

            async def visit() -> None:
                await backend.aexists("a")
                await backend.aclose()

            asyncio.run(visit())
        else:
            backend.exists("a")
        commands = [monitor.next_command()["command"].split()[0] for _ in range(2)]
    assert commands == ["HELLO", "HEXISTS"]
    assert read == []
    backend.close()


@in_both
@pytest.mark.parametrize("setup", ["sentinel", "cluster", "TLS"])
def test_nothing_is_read_from_the_disk_for_a_connection(
    settings: Any,
    request: pytest.FixtureRequest,
    server: Server,
    setup: str,
    in_loop: bool,
    tmp_path: Path,
) -> None:
    read: list[str] = []

    def version(name: str) -> str:
        read.append(name)
        return "1"

    def visit(backend: RedisBackend) -> None:
        backend.shard_of("a")  # by which the entry is read
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(importlib.metadata, "version", version)
            use(backend, in_loop)
        backend.close()

    if setup == "sentinel":
        with sentinel_setup(tmp_path, free_ports(3)) as (_, _, sentinel):
            sentinels = [("127.0.0.1", sentinel.port)]
            visit(on(settings, f"redis://{SERVICE}/0", SENTINELS=sentinels))
    elif setup == "cluster":
        nodes: list[Server] = request.getfixturevalue("cluster")
        url = f"redis://127.0.0.1:{nodes[0].port}"
        visit(on(settings, url, CONNECTION_FACTORY=CLUSTER))
    else:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        with tls_proxy(server.port, context) as port:
            url = f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=none"
            visit(on(settings, url))
    assert read == []


def test_the_defaults(settings: Any) -> None:
    settings.CACHES = {
        "own": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": "redis://127.0.0.1/0",
        }
    }
    config = ServerConfig.from_alias("own")
    assert config.kwargs["socket_timeout"] == 0.25
    assert config.connect_timeout == pytest.approx(2, rel=0.1)
