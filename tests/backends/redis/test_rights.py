"""What becomes of a conversation where a user may not do everything, or may not come in."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import NoPermissionError, ResponseError

from django_convstate import BackendUnavailable, ConversationCorrupt
from django_convstate.backends.base import Selection
from django_convstate.backends.records import Change, Replacement
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.redis.errors import describe_error, is_refusal, is_transient
from django_convstate.backends.toolkit.writer import lone_commit
from tests.support.messages import bodies, pairs
from tests.support.places import on
from tests.support.servers import Server

CLUSTER = "django_convstate.backends.redis.cluster.ClusterConnectionFactory"


def url(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}/0"


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (["on", ">right", "~convstate:*", "+@all"], None),
        (["on", ">wrong", "~convstate:*", "+@all"], "password"),
        (["on", ">right", "~convstate:*", "+ping", "+hello", "+client|setinfo"], "NOPERM"),
        (["on", ">right", "~elsewhere:*", "+@all"], "NOPERM"),
        (["on", ">right", "~convstate:*", "+@all", "-set", "-hset"], "NOPERM"),  # in a script
    ],
)
def test_a_missing_right_is_explained_and_not_tried_again(
    settings: Any, server: Server, rules: list[str], words: str | None
) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "chat", "reset", *rules)
    backend = on(settings, url(server), USERNAME="chat", PASSWORD="right")
    if words is None:
        backend.commit("a", Change(append=pairs(b"{}")))
        assert backend.health().connected
    else:
        with server.client() as client:
            before = client.info("stats")["total_connections_received"]
            with pytest.raises(BackendUnavailable, match=words) as caught:
                backend.commit("a", Change(append=pairs(b"{}")))
            after = client.info("stats")["total_connections_received"]
        assert "right" not in f"{caught.value} {caught.value.__cause__}"
        assert after - before <= 1, "no is no: it is not tried again"
        assert words in backend.health().detail
    backend.close()


@pytest.mark.parametrize("kind", ["wrong password", "no CLUSTER", "other keys"])
def test_a_missing_right_on_a_cluster_is_explained(
    settings: Any, cluster: list[Server], kind: str
) -> None:
    rules, login, words = {
        "wrong password": (["~*", "+@all"], "wrong", "password"),
        "no CLUSTER": (["~*", "+@all", "-cluster", "-command"], "right", "NOPERM"),
        "other keys": (["~other*", "+@all"], "right", "NOPERM"),
    }[kind]
    for node in cluster:
        with node.client() as client:
            client.execute_command("ACL", "SETUSER", "chat", "reset", "on", ">right", *rules)
    backend = on(
        settings,
        f"redis://chat:{login}@127.0.0.1:{cluster[0].port}",
        CONNECTION_FACTORY=CLUSTER,
    )
    try:
        assert_says(backend, words)
    finally:
        for node in cluster:
            with node.client() as client:
                client.acl_deluser("chat")


def assert_says(backend: RedisBackend, words: str, id: str = "a") -> None:
    async def load() -> None:
        try:
            await backend.aload(id, 1)
        finally:
            await backend.aclose()

    with pytest.raises(BackendUnavailable, match=words) as caught:
        backend.load(id, 1)
    assert "right" not in str(caught.value)
    with pytest.raises(BackendUnavailable, match=words):
        asyncio.run(load())
    backend.close()


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (["-eval", "-evalsha"], "NOPERM"),
        (["-hset"], "NOPERM"),
        (["-zadd"], "NOPERM"),  # of which only what has an owner has need
        (["-config", "-info", "-dbsize"], None),
        (["resetkeys", "~elsewhere:*"], "NOPERM"),
    ],
)
def test_a_missing_right_is_found_by_the_check(
    settings: Any, server: Server, rules: list[str], words: str | None
) -> None:
    with server.client() as client:
        client.config_set("maxmemory", 10**9)
        login = ["reset", "on", ">right", "~*", "+@all", *rules]
        client.execute_command("ACL", "SETUSER", "chat", *login)
    on(settings, url(server), USERNAME="chat", PASSWORD="right")
    messages = RedisBackend.check_deployment({"cache_alias": "own", "key_prefix": "checked"})
    if words is None:
        assert messages == []
    else:
        (message,) = messages
        assert (message.id, words in message.msg) == ("convstate.W004", True)
        assert "rights" in str(message.hint)
    with server.client() as client:
        assert all(client.ttl(key) >= 0 for key in client.scan_iter())


def test_a_server_that_refuses_to_write_is_found_by_the_check(
    settings: Any, server: Server
) -> None:
    on(settings, url(server))
    with server.client() as client:
        client.config_set("min-replicas-to-write", 1)
        client.config_set("maxmemory", 10**9)
    (message,) = RedisBackend.check_deployment({"cache_alias": "own"})
    assert (message.id, "NOREPLICAS" in message.msg) == ("convstate.W004", True)


@pytest.mark.parametrize(
    "said",
    [
        "NOPERM this user has no permissions to run the 'hset' command",
        "ACL failure in script: User chat has no permissions to run the 'hset' command",
        # Before Redis 7.2
        "Error running script: The user executing the script can't run this command or subcommand",
    ],
)
def test_every_server_says_it_in_its_own_words(said: str) -> None:
    kind = NoPermissionError if said.startswith("NOPERM") else ResponseError
    assert (is_refusal(kind(said)), is_transient(kind(said))) == (True, False)
    assert "NOPERM" in describe_error(kind(said))


RIGHTS = re.search(
    r"^ACL SETUSER chat on >PASSWORD (.*)$",
    (Path(__file__).parents[3] / "docs/redis.md").read_text(),
    re.MULTILINE,
)


async def everything(backend: RedisBackend) -> None:
    """Do what a backend can, by both doors."""
    change = Change(owner="u1", set={"a": b"1"}, increment={"n": 1}, append=pairs(b"{}"))
    for id in ("a", "b", "c"):
        assert backend.acquire(id, "lease", 5, 5).position == 0
        backend.commit(id, replace(change, commit=lone_commit(), lease="lease", release=True))
        assert backend.load(id, 5) is not None
        assert backend.peek(id, 5) is not None
        assert backend.touch(id, 60)
    assert backend.acquire("a", "lease", 5, 5).position == 0
    assert backend.renew("a", "lease", 5)
    backend.release("a", "lease")
    await backend.acommit("a", Change(keep_messages=0, unset=["a"]))
    assert await backend.aexists("a")
    assert bodies(await backend.aread_messages("b", 0, 5)) == [b"{}"]
    named = Change(append=[("m", b"1")], once=["m"], max_messages=2, drop_oldest=True)
    for _ in range(2):
        backend.commit("c", replace(named, commit=lone_commit()))
    backend.commit("c", Change(replace=[Replacement(id="m", old=b"1", new=b"2")]))
    position, data = await backend.afind("c", "m") or (0, b"")
    assert (position, data) == (1, b"2")
    record = backend.load("c", 5)
    assert record is not None
    beside = backend.id_beside("c")
    assert backend.rename("c", beside)
    backend.restore("c", record, record.messages)
    assert backend.delete(beside)
    assert {summary.id for summary in backend.scan()} == {"a", "b", "c"}
    assert len(list(backend.scan("u1"))) == 3
    backend.delete("a")
    assert backend.purge(Selection(owner="u1")).deleted == 2
    for health in (backend.health(), await backend.ahealth()):
        assert health.connected
        assert "version unknown" not in health.detail


@pytest.mark.parametrize("kind", ["server", "cluster"])
async def test_the_rights_in_the_docs_are_enough(
    settings: Any, request: pytest.FixtureRequest, kind: str
) -> None:
    assert RIGHTS is not None
    rules = RIGHTS[1].replace("~convstate:", "~rights:").split()
    options: dict[str, Any] = {}
    servers: list[Server] = []
    if kind == "server":
        servers = [request.getfixturevalue("server")]
    else:
        servers = request.getfixturevalue("cluster")
        rules += ["+cluster|slots", "+command"]
        options["CONNECTION_FACTORY"] = CLUSTER
    for server in servers:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "chat", "reset", "on", ">right", *rules)
    on(settings, f"redis://chat:right@127.0.0.1:{servers[0].port}", **options)
    backend = RedisBackend(cache_alias="own", key_prefix="rights")
    try:
        await everything(backend)
        with servers[0].client() as client:
            if kind == "server":
                client.set("rights:{bad}:meta", "no conversation")
                with pytest.raises(ConversationCorrupt):
                    backend.load("bad", 1)
                assert client.exists("rights:{bad}:meta:corrupt")
                assert backend.purge(Selection(everything=True)).deleted == 0
                assert client.exists("rights:{bad}:meta:corrupt")
    finally:
        backend.close()
        await backend.aclose()
        for server in servers:
            with server.client() as client:
                client.acl_deluser("chat")
