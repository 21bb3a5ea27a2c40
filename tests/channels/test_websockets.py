"""Websockets on real servers, over real sockets: daphne and uvicorn."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from django.conf import settings
from redis import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from django_convstate import ConversationStore
from django_convstate.identity import as_subprotocol
from django_convstate.tokens import sign_id, unsign_token
from tests.support.servers import Server, end, free_ports, running, wait_until
from tests.support.tabs import until_slid

PATIENCE = 30.0  # seconds for whatever has to come
COMMANDS = {
    "daphne": ["daphne", "--port", "{port}", "tests.support.sockets:application"],
    "uvicorn": ["uvicorn", "--port", "{port}", "tests.support.sockets:application"],
}
IN_MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


def cache_at(url: str) -> dict[str, Any]:
    options = {"SOCKET_TIMEOUT": 5, "SOCKET_CONNECT_TIMEOUT": 5}
    backend = "django_redis.cache.RedisCache"
    return {"default": {"BACKEND": backend, "LOCATION": url, "OPTIONS": options}}


def layer_at(url: str) -> dict[str, Any]:
    backend = "channels_redis.core.RedisChannelLayer"
    return {"default": {"BACKEND": backend, "CONFIG": {"hosts": [url]}}}


class Site:
    """A server at work."""

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        (self.port,) = free_ports(1)
        self.settings = {
            "SECRET_KEY": settings.SECRET_KEY,
            "CHANNEL_LAYERS": IN_MEMORY,
            "CONVERSATION_STATE_BACKEND": "redis",
            "CACHES": cache_at(settings.REDIS_URL),
        } | options
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Site":
        environment = os.environ | {"CONVSTATE_TEST_SETTINGS": json.dumps(self.settings)}
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        command = [part.format(port=self.port) for part in COMMANDS[self.name]]
        log = (settings.FILES / f"{self.name}-{self.port}.log").open("wb")
        with log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=environment,
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(self.answers)
        return self

    def __exit__(self, *error: object) -> None:
        if self.process is not None:
            end(self.process)

    def answers(self) -> bool:
        try:
            return self.get("ignore")[0].startswith("nothing")
        except OSError:
            return False

    def get(self, view: str, token: str | None = None) -> tuple[str, str | None]:
        """Return what a page says, and the token in the cookie that it sets."""
        request = Request(f"http://127.0.0.1:{self.port}/async/{view}")
        request.add_header("Cookie", f"conversation={token}")
        with urlopen(request, timeout=PATIENCE) as response:
            return response.read().decode(), token_in(response.headers["Set-Cookie"])

    @asynccontextmanager
    async def socket(
        self,
        path: str = "async",
        cookie: str | None = None,
        token: str | None = None,
        origin: str | None = None,
        subprotocols: list[Any] | None = None,
    ) -> AsyncIterator["Socket"]:
        if token is not None:
            subprotocols = ["convstate", as_subprotocol(token)]
        async with connect(
            f"ws://127.0.0.1:{self.port}/{path}",
            origin=origin or f"http://127.0.0.1:{self.port}",  # type: ignore[arg-type]
            additional_headers={"Cookie": f"conversation={cookie}"} if cookie else None,
            subprotocols=subprotocols,
            open_timeout=PATIENCE,
            proxy=None,
        ) as connection:
            yield Socket(connection)


class Socket:
    """An open websocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        response = connection.response
        assert response is not None
        self.headers = response.headers
        self.token = token_in(response.headers.get("Set-Cookie"))

    async def send(self, **content: Any) -> None:
        await self.connection.send(json.dumps(content))

    async def hear(self) -> Any:
        return json.loads(await asyncio.wait_for(self.connection.recv(), PATIENCE))

    async def ask(self, **content: Any) -> Any:
        await self.send(**content)
        return await self.hear()

    async def say(self, text: str) -> Any:
        """Return the answer when what was said is committed: the next message comes after that."""
        await self.ask(say=text)
        return await self.ask()

    async def close_code(self) -> int | None:
        with pytest.raises(ConnectionClosed) as caught:
            await self.hear()
        return caught.value.rcvd.code if caught.value.rcvd else None


def token_in(header: str | None) -> str | None:
    cookie = SimpleCookie(header or "")
    return cookie["conversation"].value if "conversation" in cookie else None


def contents(news: dict[str, Any]) -> list[str]:
    assert news["type"] == "conversation.messages", news
    return [message["content"] for message in news["messages"]]


@pytest.fixture(scope="session")
def sites(valkey: None) -> Iterator[dict[str, Site]]:
    sites: dict[str, Site] = {}
    try:
        yield sites
    finally:
        for site in sites.values():
            site.__exit__()


@pytest.fixture(params=list(COMMANDS))
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    """Each server in turn, started when it is first needed."""
    name = request.param
    if name not in sites:
        sites[name] = Site(name).__enter__()
    return sites[name]


@pytest.fixture
def store(valkey: None) -> Iterator[ConversationStore]:
    """What the servers keep conversations in."""
    store = ConversationStore("redis", cache_alias="django_redis", fallback=None)
    yield store
    store.close()


def stored(store: ConversationStore, *said: str, **options: Any) -> str:
    conversation = store.create(**options)
    conversation["value"] = 0
    for text in said:
        conversation.messages.append("user", text)
    conversation.save()
    return conversation.token


def id_of(token: str | None) -> str:
    id = unsign_token(token or "")
    assert id is not None
    return id


@pytest.mark.parametrize("path", ["async", "sync"])
@pytest.mark.parametrize("frame", [b"\x00\xff", b"", "", "not JSON", "[" * 100_000])
async def test_a_frame_that_is_not_json_is_answered(
    site: Site, path: str, frame: str | bytes
) -> None:
    async with site.socket(path) as chat:
        await chat.connection.send(frame)
        error = {"type": "conversation.error", "error": "InvalidConversationValue"}
        assert await chat.hear() == error
        assert (await chat.say("hello"))["messages"] == ["hello"]


@pytest.mark.parametrize("path", ["async", "sync", "plain"])
class TestTheHandshake:
    async def test_the_cookie_of_a_handshake_works_for_http(self, site: Site, path: str) -> None:
        async with site.socket(path) as chat:
            assert "HttpOnly" in chat.headers["Set-Cookie"]
            await chat.say("by socket")
            page, token = await asyncio.to_thread(site.get, "say?text=by+http", chat.token)
            assert json.loads(page)["messages"] == ["by socket", "by http"]
        async with site.socket(path, token) as chat:
            assert "Set-Cookie" not in chat.headers
            assert (await chat.ask())["messages"] == ["by socket", "by http"]

    async def test_the_cookie_of_http_works_for_a_handshake(self, site: Site, path: str) -> None:
        _, token = await asyncio.to_thread(site.get, "say?text=by+http")
        async with site.socket(path, token) as chat:
            assert (await chat.say("by socket"))["messages"] == ["by http", "by socket"]

    async def test_a_token_as_subprotocol_works(self, site: Site, path: str, store: Any) -> None:
        async with site.socket(path, token=stored(store, "hello")) as chat:
            assert chat.connection.subprotocol == "convstate"
            assert (await chat.ask())["messages"] == ["hello"]

    async def test_a_client_that_offers_the_subprotocol_is_told_a_token(
        self, site: Site, path: str
    ) -> None:
        async with site.socket(path, subprotocols=["convstate"]) as chat:
            told = await chat.hear()
            assert "Set-Cookie" not in chat.headers
            await chat.say("hello")
        async with site.socket(path, token=told["token"]) as chat:
            assert (await chat.ask())["messages"] == ["hello"]

    async def test_another_origin_is_refused(self, site: Site, path: str) -> None:
        with pytest.raises(InvalidStatus) as caught:
            async with site.socket(path, origin="http://evil.example"):
                pass
        assert caught.value.response.status_code == 403


@pytest.mark.parametrize("path", ["async", "sync"])
class TestAChat:
    async def test_a_token_as_first_message_works(self, site: Site, path: str, store: Any) -> None:
        async with site.socket(path) as chat:
            await chat.send(type="conversation.token", token=stored(store, "hello"), seen=0)
            assert contents(await chat.hear()) == ["hello"]

    async def test_errors_close_the_socket_with_their_codes(
        self, site: Site, path: str, store: Any
    ) -> None:
        async with site.socket(path, token="forged:token") as chat:
            assert await chat.close_code() == 4401
        async with site.socket(path, token=sign_id("gone")) as chat:
            assert await chat.close_code() == 4404
        async with site.socket(path) as chat:
            await chat.send(type="conversation.token", token="forged")
            assert await chat.close_code() == 4401
        for error, code in {"ConversationBusy": 4409, "BackendUnavailable": 4503}.items():
            async with site.socket(path) as chat:
                await chat.send(fail=error)
                assert await chat.close_code() == code

    async def test_two_tabs_hear_each_other(self, site: Site, path: str) -> None:
        async with site.socket(path) as one, site.socket(path, one.token) as two:
            await one.ask(say="from one")
            assert contents(await two.hear()) == ["from one"]
            await two.ask(say="from two")
            assert contents(await one.hear()) == ["from two"]

    async def test_a_tab_that_comes_back_has_missed_nothing(self, site: Site, path: str) -> None:
        async with site.socket(path) as one:
            async with site.socket(path, one.token) as two:
                await two.say("one")
                assert contents(await one.hear()) == ["one"]
            await one.say("two")
            await one.say("three")
            async with site.socket(f"{path}?seen=1", one.token) as two:
                assert contents(await two.hear()) == ["two", "three"]

    async def test_a_message_of_a_client_that_hangs_up_is_saved(
        self, site: Site, path: str, store: Any
    ) -> None:
        token = stored(store)
        async with site.socket(path, token) as chat:
            assert (await chat.ask(say="hello", dawdle=0.5))["type"] == "dawdling"
            chat.connection.transport.abort()
        await asyncio.to_thread(wait_until, lambda: len(store.get(id_of(token)).messages) == 1)

    @pytest.mark.slow
    async def test_an_open_socket_outlives_the_ttl(self, site: Site, path: str, store: Any) -> None:
        token = stored(store, "hello", ttl=4)
        async with site.socket(path, token) as chat:
            await until_slid(store, id_of(token))
            assert (await chat.ask())["messages"] == ["hello"]
        await asyncio.to_thread(wait_until, lambda: not store.exists(id_of(token)))


async def test_processes_hear_each_other_through_redis(store: ConversationStore) -> None:
    layers = layer_at(settings.REDIS_URL)
    with (
        Site("daphne", CHANNEL_LAYERS=layers) as daphne,
        Site("uvicorn", CHANNEL_LAYERS=layers) as uvicorn,
    ):
        token = stored(store)
        async with (
            daphne.socket("async", token) as one,
            uvicorn.socket("async", token) as two,
            uvicorn.socket("sync", token) as three,
        ):
            chats = one, two, three
            for number, chat in enumerate(chats):
                await chat.ask(say=str(number))
                for other in chats:
                    if other is not chat:
                        assert contents(await other.hear()) == [str(number)]
            with Redis.from_url(settings.REDIS_URL) as server:
                groups = server.keys("asgi:group:*")
            assert groups
            assert not any(id_of(token).encode() in key for key in groups)


class TestAnOutage:
    async def test_without_a_fallback_sockets_are_closed(self) -> None:
        with Site(
            "uvicorn",
            CACHES=cache_at("redis://127.0.0.1:1"),
            CONVERSATION_STATE={"FALLBACK": None},
        ) as site:
            for path in ("async", "sync"):
                async with site.socket(path, sign_id("somebody")) as chat:
                    assert "Set-Cookie" not in chat.headers
                    assert await chat.close_code() == 4503

    @pytest.mark.slow
    async def test_an_outage_of_the_channel_layer_delays_news(
        self, valkey: None, tmp_path: Path
    ) -> None:
        server = Server(tmp_path, free_ports(1)[0])
        layers = layer_at(f"redis://127.0.0.1:{server.port}")
        with running([server]), Site("uvicorn", CHANNEL_LAYERS=layers) as site:
            async with site.socket("async") as one, site.socket("sync", one.token) as two:
                await one.ask(say="before")
                assert contents(await two.hear()) == ["before"]
                await asyncio.to_thread(server.kill)
                assert (await one.say("meanwhile"))["count"] == 2
                await asyncio.to_thread(server.start)
                assert contents(await two.hear()) == ["meanwhile"], "it looks by itself"
                await two.ask(say="after")
                assert contents(await one.hear()) == ["after"]

    async def test_with_a_fallback_sockets_go_on(self) -> None:
        with Site("uvicorn", CACHES=cache_at("redis://127.0.0.1:1")) as site:
            for path in ("async", "sync"):
                async with site.socket(path) as chat:
                    await chat.say("hello")
                    assert (await chat.say("again"))["messages"] == ["hello", "again"]


@pytest.mark.slow
async def test_the_memory_of_a_busy_server_does_not_grow(
    site: Site, store: ConversationStore
) -> None:
    async def turns(chat: Socket, count: int) -> int:
        for _ in range(count):
            await chat.ask(take_back=0, say="x" * 1000)
        return resident(site)

    async with site.socket("async", stored(store)) as chat:
        before = await turns(chat, 500)
        after = await turns(chat, 2000)
    assert after - before < 2**21, "of 2 MB that were said, nothing like that is kept"


def resident(site: Site) -> int:
    """Return how many bytes of memory the server has in use."""
    assert site.process is not None
    pages = int(Path(f"/proc/{site.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
