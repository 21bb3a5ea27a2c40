"""Conversations that begin while the store is away or slow, on real servers: whichever worker
answers afterwards, they keep their id, their cookie and what was acknowledged."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from django_convstate.tokens import read_token
from tests.support.ruler import limit
from tests.support.servers import Server, end, free_ports, running, wait_until

SERVERS = {
    "sync": ["gunicorn", "tests.support.live:wsgi", "--bind", "127.0.0.1:{port}"],
    "async": ["uvicorn", "tests.support.live:asgi", "--port", "{port}"],
}
OTHERS = {
    "daphne": ["daphne", "tests.support.live:asgi", "--port", "{port}"],
    "closing": ["uvicorn", "tests.support.closing:application", "--port", "{port}"],
}


class Site:
    """A server at work: one process or, with workers, several."""

    def __init__(self, way: str, store: Server, *options: str) -> None:
        self.way = "sync" if way == "sync" else "async"
        (self.port,) = free_ports(1)
        command = [part.format(port=self.port) for part in (SERVERS | OTHERS)[way]]
        self.log = settings.FILES / f"outages-{self.port}.log"
        environment = os.environ | {
            "CONVSTATE_TEST_REDIS_URL": f"redis://127.0.0.1:{store.port}/0",
            "CONVSTATE_TEST_SECRET": settings.SECRET_KEY,
            "CONVSTATE_TEST_URLS": "tests.support.saying",
            "CONVSTATE_TEST_TIMEOUT": str(limit(0.25)),
        }
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command, *options],
                env=environment,
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> "Site":
        wait_until(self.answers)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        end(self.process)

    def answers(self) -> bool:
        try:
            return Client().read(self) == []
        except OSError:
            return False

    def freeze(self) -> None:
        """Stop the process, so that it replays nothing for now."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


class Client:
    """A browser. Notes its cookies, and what was acknowledged."""

    def __init__(self) -> None:
        self.cookies: list[str] = []
        self.acknowledged: list[str] = []

    def ask(self, site: Site, view: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
        try:
            headers = {"Cookie": f"conversation={self.cookies[-1]}"} if self.cookies else {}
            connection.request("GET", f"/{site.way}/{view}", headers=headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        assert response.status == 200, site.log.read_text()
        sent = response.getheader("Set-Cookie")
        if sent is not None:
            found = re.match(r'conversation="?([^;"]*)', sent)
            assert found
            self.cookies.append(found[1])
        return json.loads(body)

    def say(self, site: Site, text: str) -> bool:
        """Say something, and return whether it was accepted in memory only."""
        degraded: bool = self.ask(site, f"say?text={text}")["degraded"]
        self.acknowledged.append(text)
        return degraded

    def read(self, site: Site) -> list[str]:
        texts: list[str] = self.ask(site, "read")["texts"]
        return texts

    @property
    def ids(self) -> set[str]:
        tokens = [read_token(cookie) for cookie in self.cookies]
        return {token.id if token else "none" for token in tokens}

    @property
    def is_unsaved(self) -> bool:
        token = read_token(self.cookies[-1])
        assert token is not None
        return token.is_unsaved


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, free_ports(1)[0], "--appendonly", "yes")
    with running([server]):
        yield server


TROUBLES: dict[str, tuple[Callable[[Server], None], Callable[[Server], None]]] = {
    "stalled": (Server.freeze, Server.thaw),
    "killed": (Server.kill, Server.start),
}


@pytest.mark.parametrize("way", SERVERS)
@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("continues_elsewhere", [False, True])
def test_another_worker_that_answers_first_keeps_id_and_cookie(
    store: Server, way: str, trouble: str, continues_elsewhere: bool
) -> None:
    begin, end = TROUBLES[trouble]
    with Site(way, store) as first, Site(way, store) as second:
        client = Client()
        begin(store)
        assert client.say(first, "one")
        if continues_elsewhere:
            assert client.say(second, "two")
        first.freeze()  # with what it has accepted
        end(store)
        client.read(second)
        wait_until(lambda: not client.say(second, f"t{len(client.acknowledged)}"))
        first.thaw()
        wait_until(lambda: sorted(client.read(second)) == sorted(client.acknowledged))
        assert sorted(client.read(first)) == sorted(client.acknowledged)
        assert len(client.ids) == 1
        assert not client.is_unsaved, "the store has it"


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_newcomers_of_a_stall_keep_their_ids(store: Server, options: tuple[str, ...]) -> None:
    with ExitStack() as stack:
        site = stack.enter_context(Site("sync", store, "--workers", "4", *options))
        newcomers = [Client() for _ in range(20)]
        pool = stack.enter_context(ThreadPoolExecutor(20))
        store.freeze()
        assert all(pool.map(lambda client: client.say(site, "m0"), newcomers))
        store.thaw()
        for number in range(1, 9):
            list(pool.map(lambda client, n=number: client.say(site, f"m{n}"), newcomers))
        for client in newcomers:
            wait_until(lambda client=client: sorted(client.read(site)) == client.acknowledged)
            assert len(client.ids) == 1
            assert not client.is_unsaved


def end_in_outage(site: Site, store: Server) -> Client:
    client = Client()
    store.kill()
    assert client.say(site, "one")
    return client


@pytest.mark.parametrize(
    ("way", "runs_exit_handlers"), [("sync", True), ("daphne", True), ("async", False)]
)
def test_a_server_that_runs_exit_handlers_says_what_is_lost(
    store: Server, way: str, runs_exit_handlers: bool
) -> None:
    with Site(way, store) as site:
        end_in_outage(site, store)
        site.process.terminate()
        site.process.wait(60)
        says_it = "1 changes of 1 conversations are lost with this process" in site.log.read_text()
        assert says_it is runs_exit_handlers


def test_uvicorn_replays_at_its_end_where_the_application_closes_the_store(store: Server) -> None:
    with Site("closing", store) as site:
        client = end_in_outage(site, store)
        store.start()
        site.process.terminate()
        site.process.wait(60)
    with Site("async", store) as another:
        assert client.read(another) == ["one"]
