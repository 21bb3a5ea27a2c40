"""Streams on real servers, over real sockets, with clients that hang up."""

import http.client
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from django_convstate import Conversation, ConversationStore
from django_convstate.tokens import unsign_token
from tests.support.servers import end, free_ports, wait_until
from tests.support.streams import text

ASGI = ["uvicorn", "daphne"]
WSGI = ["gunicorn", "gthread"]
COMMANDS = {
    "uvicorn": ["uvicorn", "tests.support.live:asgi", "--port", "{port}"],
    "daphne": ["daphne", "tests.support.live:asgi", "--port", "{port}"],
    "gunicorn": ["gunicorn", "tests.support.live:wsgi", "--bind", "127.0.0.1:{port}"],
    "gthread": [
        "gunicorn",
        "tests.support.live:wsgi",
        "--bind",
        "127.0.0.1:{port}",
        "--threads",
        "4",
    ],
}
ENDLESS = "words=2000&pause=0.02"


class Site:
    """A server at work, and a look into its store."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.way = "async" if name in ASGI else "sync"
        (self.port,) = free_ports(1)
        self.log = settings.FILES / f"{name}.log"
        self.store = ConversationStore("redis", cache_alias="django_redis")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [part.format(port=self.port) for part in COMMANDS[self.name]]
        environment = os.environ | {
            "CONVSTATE_TEST_REDIS_URL": settings.REDIS_URL,
            "CONVSTATE_TEST_SECRET": settings.SECRET_KEY,
        }
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=environment,
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(self.answers)

    def answers(self) -> bool:
        try:
            return self.get("look")[1] == b"0"
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
        self.store.close()

    def get(self, view: str) -> tuple[http.client.HTTPResponse, bytes]:
        """Read to the end.

        Raises:
            http.client.IncompleteRead: there was none.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", f"/{self.way}/{view}")
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def open(self, view: str, conversation: Conversation, way: str = "") -> socket.socket:
        """Ask, and be ready to read."""
        wire = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        wire.sendall(
            f"GET /{way or self.way}/{view} HTTP/1.1\r\nHost: localhost\r\n"
            f"Cookie: conversation={conversation.token}\r\n\r\n".encode()
        )
        return wire

    def begin(self) -> Conversation:
        """Store a conversation, for a client that comes back to it."""
        conversation = self.store.create()
        conversation["begun"] = True
        conversation.save()
        return conversation

    def check_kept(self, conversation: Conversation, said: int) -> None:
        """What is stored is the user's message and one answer: the first words, at least those
        `said`, marked as interrupted. A server may notice late that nobody listens."""
        wait_until(lambda: self.store.get(conversation.id).messages)
        conversation.reload()
        first, *answers = conversation.messages.all()
        assert first["content"] == "hello"
        assert len(answers) == 1 if said else len(answers) <= 1
        assert conversation.version == 2, "one commit"
        for answer in answers:
            words = answer["content"].count(" ")
            assert said <= words < 2000
            assert answer["content"] == text(words)
            assert answer["interrupted"] is True


@pytest.fixture(scope="session")
def sites(valkey: None) -> Iterator[dict[str, Site]]:
    sites: dict[str, Site] = {}
    try:
        yield sites
    finally:
        for site in sites.values():
            site.stop()


@pytest.fixture(params=ASGI + WSGI)
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    """Each server in turn, started when it is first needed."""
    name = request.param
    if name not in sites:
        sites[name] = Site(name)
        sites[name].start()
    return sites[name]


only_asgi = pytest.mark.parametrize("site", ASGI, indirect=True)


def read_words(wire: socket.socket, count: int) -> bytes:
    seen = b""
    while seen.count("wörd".encode()) < count:
        data = wire.recv(4096)
        assert data, "the server has hung up"
        seen += data
    return seen


@pytest.mark.parametrize("view", ["answer", "sse"])
def test_a_stream_read_to_its_end_is_saved(site: Site, view: str) -> None:
    response, body = site.get(view)
    cookie = str(response.getheader("Set-Cookie"))
    found = re.search(r"conversation=([^;]+)", cookie)
    assert found
    id = unsign_token(found[1])
    assert id
    conversation = site.store.get(id)
    assert [m["content"] for m in conversation.messages] == ["hello", text(5)]
    assert not any("interrupted" in m for m in conversation.messages)
    assert body.count("wörd".encode()) == 5
    assert response.getheader("Cache-Control") == "private"


@pytest.mark.parametrize("view", ["answer", "sse"])
@pytest.mark.parametrize("count", range(1, 7))
def test_a_client_that_hangs_up_leaves_what_was_sent_as_interrupted(
    site: Site, view: str, count: int
) -> None:
    conversation = site.begin()
    with site.open(f"{view}?{ENDLESS}", conversation) as wire:
        read_words(wire, count)
    site.check_kept(conversation, count)


@pytest.mark.parametrize("view", ["answer", "sse"])
def test_a_client_that_hangs_up_before_the_first_chunk_leaves_its_question(
    site: Site, view: str, tmp_path: Path
) -> None:
    conversation, returned = site.begin(), tmp_path / "returned"
    with site.open(f"{view}?words=2000&pause=0.2&returned={returned}", conversation):
        wait_until(returned.exists)
    site.check_kept(conversation, 0)


@only_asgi
def test_a_client_that_hangs_up_before_the_stream_begins_leaves_its_question(
    site: Site, tmp_path: Path
) -> None:
    conversation, returned = site.begin(), tmp_path / "returned"
    with site.open(f"answer?{ENDLESS}&dawdle&returned={returned}", conversation):
        wait_until(returned.exists)
    # Django 6.1 leaves what it has cancelled to the garbage collector, which needs some traffic.
    wait_until(lambda: site.get("look") and site.store.get(conversation.id).messages)
    site.check_kept(conversation, 0)
    assert len(conversation.messages) == 1


@only_asgi
def test_a_client_that_hangs_up_between_chunks_leaves_what_was_sent(site: Site) -> None:
    conversation = site.begin()
    with site.open("answer?hang=3", conversation) as wire:
        read_words(wire, 3)
    site.check_kept(conversation, 3)
    assert conversation.messages[-1]["content"] == text(3)


@pytest.mark.parametrize("view", ["answer", "sse"])
@pytest.mark.parametrize("count", [0, 3])
def test_a_failing_model_leaves_what_it_said_as_interrupted(
    site: Site, view: str, count: int
) -> None:
    conversation = site.begin()
    with site.open(f"{view}?fail={count}", conversation) as wire:
        read_words(wire, count)
        site.check_kept(conversation, count)
    assert len(conversation.messages) == (2 if count else 1)


def test_a_stream_whose_save_fails_is_broken_off(site: Site) -> None:
    """Most servers close the connection then; daphne falls silent."""
    lines = site.log.read_bytes().count(b"was not saved")
    with site.open("bad_value", site.begin()) as wire:
        seen = read_words(wire, 5)
        wait_until(lambda: site.log.read_bytes().count(b"was not saved") > lines)
        wire.settimeout(1)
        with suppress(TimeoutError):
            while data := wire.recv(4096):
                seen += data
    assert b"chunked" in seen
    assert not seen.endswith(b"0\r\n\r\n")


def test_a_sync_or_async_iterator_that_django_converts_is_saved(site: Site, tmp_path: Path) -> None:
    """Django reads it to its end before it sends anything; so much for a stream."""
    assert site.get("mixed")[1] == text(5).encode()
    conversation, returned = site.begin(), tmp_path / "returned"
    with site.open(f"mixed?words=30&pause=0.01&returned={returned}", conversation):
        wait_until(returned.exists)
    wait_until(lambda: site.store.get(conversation.id).messages)
    conversation.reload()
    assert conversation.messages[0]["content"] == "hello"
    assert all(text(30).startswith(m["content"]) for m in conversation.messages[1:])


@only_asgi
def test_a_client_that_hangs_up_on_a_sync_view_leaves_all_that_it_says(
    site: Site, tmp_path: Path
) -> None:
    conversation, asked = site.begin(), tmp_path / "asked"
    with site.open(f"ask?pause=1.5&asked={asked}", conversation, "sync"):
        wait_until(asked.exists)
    wait_until(lambda: len(site.store.get(conversation.id).messages) == 2)
    conversation.reload()
    assert [m["content"] for m in conversation.messages] == ["hello", text(1)]
    assert conversation.version == 2


@only_asgi
def test_a_client_that_hangs_up_on_an_async_view_leaves_what_it_had_said(
    site: Site, tmp_path: Path
) -> None:
    conversation, asked = site.begin(), tmp_path / "asked"
    with site.open(f"ask?pause=60&asked={asked}", conversation):
        wait_until(asked.exists)
    site.check_kept(conversation, 0)
    assert len(conversation.messages) == 1


@only_asgi
def test_a_client_that_hangs_up_on_a_failing_view_leaves_nothing(
    site: Site, tmp_path: Path
) -> None:
    conversation, asked = site.begin(), tmp_path / "asked"
    with site.open(f"ask?pause=1&status=500&asked={asked}", conversation, "sync"):
        wait_until(asked.exists)
    # When another one that has begun later is done, so is the first.
    asked.unlink()
    with site.open(f"ask?pause=1.5&asked={asked}", conversation, "sync"):
        wait_until(asked.exists)
    wait_until(lambda: len(site.store.get(conversation.id).messages) == 2)
    assert site.store.get(conversation.id).version == 2


@pytest.mark.parametrize("view", ["turn", "turn_inside"])
def test_a_client_that_hangs_up_during_a_turn_leaves_what_was_sent(site: Site, view: str) -> None:
    conversation = site.begin()
    with site.open(f"{view}?{ENDLESS}", conversation) as wire:
        read_words(wire, 3)
    site.check_kept(conversation, 3)
    with conversation.turn("reject"):
        pass


def test_turns_that_stream_follow_each_other(site: Site) -> None:
    conversation = site.begin()
    wires = [site.open("turn?words=4&pause=0.1", conversation) for _ in range(3)]
    for wire in wires:
        with wire:
            read_words(wire, 4)
    wait_until(lambda: len(site.store.get(conversation.id).messages) == 6)
    conversation.reload()
    assert [m["content"] for m in conversation.messages] == ["hello", text(4)] * 3


def test_interrupted_answers_follow_each_other(site: Site) -> None:
    conversation: Any = site.begin()
    for turn in range(1, 4):
        with site.open(f"answer?{ENDLESS}", conversation) as wire:
            read_words(wire, turn)
        wait_until(lambda turn=turn: len(site.store.get(conversation.id).messages) == 2 * turn)
