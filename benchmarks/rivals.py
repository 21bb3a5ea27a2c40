"""What others do for a chat turn on Redis, each by its own public API: load the conversation with
its last 20 messages, change one state value where it has such, append two messages.

Each is an optional install: a function here raises ImportError where its library is not there.
Else it takes the server's URL and returns what begins a conversation of so many messages, and that
returns a turn on it.
"""

from collections.abc import Awaitable, Callable
from itertools import cycle
from typing import Any

from benchmarks import chats

# Made before, for that takes longer than a message does. No two that are stored close to each other
# are the same: of one text that is repeated, pickle keeps one copy, and no chat is like that.
_texts = cycle([chats.text() for _ in range(1000)])

Turn = Callable[[], object]
Begin = Callable[[int], Turn]
AsyncTurn = Callable[[], Awaitable[object]]
AsyncBegin = Callable[[int], Awaitable[AsyncTurn]]


def text() -> str:
    """Return something to say, of 200 bytes."""
    return next(_texts)


def messages(count: int) -> list[dict[str, str]]:
    stamp = "2026-11-20T12:00:00.000+00:00"
    return [{"role": "user", "content": text(), "timestamp": stamp} for _ in range(count)]


def django_session(url: str) -> Begin:
    from django.contrib.sessions.backends.cache import SessionStore

    def begin(count: int) -> Turn:
        session = SessionStore()
        session["messages"] = messages(count)
        session.save()

        def turn() -> None:
            known = SessionStore(session.session_key)
            said = known["messages"]
            said[-20:]
            known["lastQuery"] = text()
            known["messages"] = said + messages(2)
            known.save()

        return turn

    return begin


def langchain(url: str) -> Begin:
    from langchain_community.chat_message_histories import RedisChatMessageHistory
    from langchain_core.messages import AIMessage, HumanMessage

    history = RedisChatMessageHistory("bench", url=url, ttl=3600)

    def turn() -> None:
        history.messages[-20:]
        history.add_messages([HumanMessage(text()), AIMessage(text())])

    def begin(count: int) -> Turn:
        history.clear()
        history.add_messages([HumanMessage(text()) for _ in range(count)])
        return turn

    return begin


def django_session_async(url: str) -> AsyncBegin:
    from django.contrib.sessions.backends.cache import SessionStore

    async def begin(count: int) -> AsyncTurn:
        session = SessionStore()
        await session.aset("messages", messages(count))
        await session.asave()

        async def turn() -> None:
            known = SessionStore(session.session_key)
            said: Any = await known.aget("messages")
            said[-20:]
            await known.aset("lastQuery", text())
            await known.aset("messages", said + messages(2))
            await known.asave()

        return turn

    return begin


def openai_agents(url: str) -> AsyncBegin:
    from agents.extensions.memory import RedisSession

    session = RedisSession.from_url("bench", url=url, ttl=3600)

    async def turn() -> None:
        await session.get_items(limit=20)
        await session.add_items(
            [{"role": "user", "content": text()}, {"role": "assistant", "content": text()}]
        )

    async def begin(count: int) -> AsyncTurn:
        await session.clear_session()
        await session.add_items([{"role": "user", "content": text()} for _ in range(count)])
        return turn

    return begin


def aiogram(url: str) -> AsyncBegin:
    from aiogram.fsm.storage.base import StorageKey
    from aiogram.fsm.storage.redis import RedisStorage

    storage = RedisStorage.from_url(url, data_ttl=3600)
    key = StorageKey(bot_id=1, chat_id=1, user_id=1)

    async def turn() -> None:
        data = await storage.get_data(key)
        data["messages"][-20:]
        data["lastQuery"] = text()
        data["messages"] += messages(2)
        await storage.set_data(key, data)

    async def begin(count: int) -> AsyncTurn:
        await storage.set_data(key, {"messages": messages(count)})
        return turn

    return begin


def starsessions(url: str) -> AsyncBegin:
    import json

    from starsessions.stores.redis import RedisStore

    store = RedisStore(url)

    async def turn() -> None:
        data = json.loads(await store.read("bench", lifetime=3600))
        data["messages"][-20:]
        data["lastQuery"] = text()
        data["messages"] += messages(2)
        await store.write("bench", json.dumps(data).encode(), lifetime=3600, ttl=3600)

    async def begin(count: int) -> AsyncTurn:
        start = json.dumps({"messages": messages(count)}).encode()
        await store.write("bench", start, lifetime=3600, ttl=3600)
        return turn

    return begin


SYNC = {"Django session (django-redis)": django_session, "LangChain": langchain}
ASYNC = {
    "Django session (django-redis)": django_session_async,
    "OpenAI Agents RedisSession": openai_agents,
    "aiogram": aiogram,
    "starsessions": starsessions,
}
