"""An error that leaves the package shows where it was raised, and no local of ours."""

import asyncio
import inspect
import logging
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from django_convstate import (
    BackendUnavailable,
    Conversation,
    ConversationBusy,
    ConversationConflict,
    ConversationCorrupt,
    ConversationInterrupted,
    ConversationNotFound,
    ConversationStore,
    ConversationTooLarge,
    InvalidBackend,
    InvalidConversationId,
    InvalidConversationValue,
    Messages,
    conversations,
    get_backend,
    signals,
)
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.decorators import conversation_turn
from django_convstate.exceptions import InvalidConversationType, MessageNotFound
from django_convstate.observing import observers
from django_convstate.tracebacks import (
    Hidden,
    clear_locals,
    clears_locals,
    clears_own_locals,
    without_locals,
)
from tests.support.backends import Switched
from tests.support.places import on
from tests.support.redis import key_of, raw
from tests.support.reports import CANARY, errors_of, frames_of, functions_of, leaks
from tests.support.servers import Server, free_ports, running, wait_until

ID, TEXT, OWNER, PASSWORD = (f"{CANARY}-{what}" for what in ("id", "text", "owner", "password"))
BAD = [TEXT, {1}]  # no JSON
LONE_SURROGATE = TEXT + "\ud800"


class Caller:
    """Calls methods, or their twins."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __call__(self, target: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        if self.way == "sync" or not hasattr(target, f"a{name}"):
            found = getattr(target, name)(*args, **kwargs)
            return list(found) if inspect.isgenerator(found) else found

        async def call() -> Any:
            found = getattr(target, f"a{name}")(*args, **kwargs)
            return await found if inspect.isawaitable(found) else [each async for each in found]

        return asyncio.run(call())

    def turn(self, conversation: Conversation, body: Callable[[], object], **options: Any) -> None:
        if self.way == "sync":
            with conversation.turn(**options):
                body()
            return

        async def turn() -> None:
            async with conversation.aturn(**options):
                body()

        asyncio.run(turn())

    def stream(self, messages: Messages, chunks: list[Any]) -> None:
        if self.way == "sync":
            list(messages.stream("assistant", chunks))
            return

        async def stream() -> None:
            async def achunks() -> AsyncIterator[Any]:
                for chunk in chunks:
                    yield chunk

            async for _ in messages.stream("assistant", achunks()):
                pass

        asyncio.run(stream())


@pytest.fixture
def call(way: str) -> Caller:
    return Caller(way)


class Scene:
    """A stored conversation under an id that is a canary, as everything in it."""

    def __init__(self, store: ConversationStore, call: Caller) -> None:
        self.store, self.call = store, call
        store.backend.release(ID, "lease")
        store.delete(ID)
        self.conversation = store.create(id=ID, owner=OWNER)
        self.conversation["note"] = TEXT
        self.message_id = self.conversation.messages.append("user", TEXT)
        self.conversation.save()

    def delete(self) -> Self:
        self.store.delete(ID)
        return self

    def change(self) -> Self:
        self.conversation["note"] = TEXT + "!"
        self.conversation.messages.append("assistant", TEXT)
        return self

    def nest(self, value: object) -> Self:
        self.conversation["list"] = [TEXT]
        self.conversation["list"].append(value)
        return self

    def busy(self) -> Self:
        self.store.backend.acquire(ID, "lease", 30, 1)
        return self


FAILING: dict[str, tuple[type[Exception], Callable[[Scene], Any]]] = {
    # what is written
    "assign": (InvalidConversationType, lambda s: s.conversation.__setitem__("note", BAD)),
    "update state": (InvalidConversationType, lambda s: s.conversation.update(note=BAD)),
    "setdefault": (InvalidConversationType, lambda s: s.conversation.setdefault("new", BAD)),
    "surrogate": (
        InvalidConversationValue,
        lambda s: s.conversation.__setitem__("note", LONE_SURROGATE),
    ),
    "incr": (InvalidConversationType, lambda s: s.conversation.incr("note")),
    "nested": (
        InvalidConversationType,
        lambda s: s.call(s.nest({1}).conversation, "save"),
    ),
    "append": (InvalidConversationType, lambda s: s.conversation.messages.append("user", BAD)),
    "append surrogate": (
        InvalidConversationValue,
        lambda s: s.conversation.messages.append("user", LONE_SURROGATE),
    ),
    "too large": (
        ConversationTooLarge,
        lambda s: s.conversation.messages.append("user", TEXT * 10_000),
    ),
    "state too large": (
        ConversationTooLarge,
        lambda s: s.conversation.__setitem__("note", TEXT * 30_000),
    ),
    "extend": (
        InvalidConversationType,
        lambda s: s.conversation.messages.extend([{"a": TEXT}, {"b": BAD}]),
    ),
    "stream": (
        InvalidConversationType,
        lambda s: s.call.stream(s.conversation.messages, [TEXT, TEXT, 1]),
    ),
    "stream too large": (
        ConversationTooLarge,
        lambda s: s.call.stream(s.conversation.messages, [TEXT * 1000] * 20),
    ),
    "update message": (
        InvalidConversationType,
        lambda s: s.call(s.conversation.messages, "update", s.message_id, content=BAD),
    ),
    "no message": (MessageNotFound, lambda s: s.call(s.conversation.messages, "find", ID)),
    "redact": (MessageNotFound, lambda s: s.call(s.conversation.messages, "redact", ID)),
    "append unloaded": (
        InvalidConversationType,
        lambda s: s.call(s.store, "append", ID, "user", BAD),
    ),
    "extend unloaded": (
        InvalidConversationType,
        lambda s: s.call(s.store, "extend", ID, [{"a": BAD}]),
    ),
    # what is asked for
    "bad id": (InvalidConversationId, lambda s: s.call(s.store, "get", f"{ID} {ID}")),
    "bad owner": (InvalidConversationValue, lambda s: s.store.create(owner=OWNER * 100)),
    "bad cursor": (InvalidConversationValue, lambda s: s.call(s.store, "list", OWNER, after=ID)),
    "bad purge": (
        InvalidConversationValue,
        lambda s: s.call(s.store, "purge", owner=OWNER, everything=True),
    ),
    "key": (InvalidConversationType, lambda s: s.store.key(TEXT, BAD)),
    # what is not there
    "get": (ConversationNotFound, lambda s: s.call(s.delete().store, "get", ID)),
    "get another's": (ConversationNotFound, lambda s: s.call(s.store, "get", ID, owner=TEXT)),
    "open another's": (ConversationNotFound, lambda s: s.call(s.store, "open", ID, owner=TEXT)),
    "peek": (ConversationNotFound, lambda s: s.call(s.delete().store, "peek", ID)),
    "reload": (ConversationNotFound, lambda s: s.call(s.delete().conversation, "reload")),
    "cycle_id": (ConversationNotFound, lambda s: s.call(s.delete().conversation, "cycle_id")),
    "touch": (ConversationInterrupted, lambda s: s.call(s.delete().conversation, "touch")),
    "interrupted": (
        ConversationInterrupted,
        lambda s: s.call(s.change().delete().conversation, "save"),
    ),
    # what others do
    "conflict": (
        ConversationConflict,
        lambda s: s.call(s.change().conversation, "save", expected_version=9),
    ),
    "delete version": (
        ConversationConflict,
        lambda s: s.call(s.store, "delete", ID, expected_version=9),
    ),
    "claim": (ConversationConflict, lambda s: s.call(s.conversation, "claim", TEXT)),
    "append to another's": (
        ConversationConflict,
        lambda s: s.call(s.store, "append", ID, "user", TEXT, owner=TEXT),
    ),
    "taken": (
        ConversationConflict,
        lambda s: (
            (new := s.store.create(id=ID)).messages.append("user", TEXT),
            s.call(new, "save"),
        ),
    ),
    "busy": (
        ConversationBusy,
        lambda s: s.call.turn(s.busy().conversation, lambda: None, on_busy="reject"),
    ),
    "turn of a deleted one": (
        ConversationInterrupted,
        lambda s: s.call.turn(s.delete().conversation, lambda: None),
    ),
    "end of a turn": (
        ConversationInterrupted,
        lambda s: s.call.turn(s.conversation, lambda: s.change().delete()),
    ),
}


def failure(kind: type[BaseException], run: Callable[[], Any]) -> BaseException:
    with pytest.raises(kind) as caught:
        run()
    return caught.value


@pytest.fixture(params=["locmem", "default", "standalone", "failover"])
def place(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name in ("standalone", "failover"):
        request.getfixturevalue("valkey")
    return name


@pytest.mark.parametrize("what", FAILING)
def test_no_local_of_ours_leaves_with_an_error(
    what: str, store: ConversationStore, call: Caller
) -> None:
    kind, run = FAILING[what]
    scene = Scene(store, call)
    error = failure(kind, lambda: run(scene))
    assert leaks(error) == []


@pytest.mark.parametrize("says", [False, True])
def test_nor_with_one_of_a_view_in_a_turn(rf: RequestFactory, way: str, says: bool) -> None:
    """The request has the token, and the view's arguments may be texts."""

    def view(request: Any, text: str) -> HttpResponse:
        if says:
            request.conversation.messages.append("user", text)
        raise ValueError("from the view")

    async def aview(request: Any, text: str) -> HttpResponse:
        return view(request, text)

    request: Any = rf.get(f"/{TEXT}", {"say": TEXT})
    in_turn: Any = conversation_turn(view if way == "sync" else aview)
    if way == "sync":
        request.conversation = conversations.create()
        error = failure(ValueError, lambda: in_turn(request, TEXT))
    else:

        async def aconversation() -> Conversation:
            request.conversation = conversation = conversations.create()
            return conversation

        request.aconversation = aconversation
        error = failure(ValueError, lambda: asyncio.run(in_turn(request, TEXT)))
    ours = [frame for frame in frames_of(error) if frame.tb_frame.f_code.co_name == "in_turn"]
    assert ours, "the frame of the decorator is there"
    assert leaks(error, "django_convstate") == []
    assert not any(frame.tb_frame.f_locals for frame in ours)


@pytest.mark.usefixtures("valkey")
@pytest.mark.parametrize("part", ["meta", "state", "messages"])
def test_nor_with_that_of_a_damaged_conversation(
    part: str, call: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    store = ConversationStore(get_backend("redis", cache_alias="django_redis"))
    scene = Scene(store, call)
    raw().set(key_of(ID, part), TEXT)
    error = failure(ConversationCorrupt, lambda: call(store, "get", ID))
    assert leaks(error) == []
    assert CANARY not in caplog.text
    scene = Scene(store, call)
    raw().set(key_of(ID, part), TEXT)
    error = failure(ConversationCorrupt, lambda: call(scene.change().conversation, "save"))
    assert leaks(error) == []
    assert CANARY not in caplog.text
    store.close()


ASKED: dict[str, Callable[[Scene], Any]] = {
    "get": lambda s: s.call(s.store, "get", ID),
    "peek": lambda s: s.call(s.store, "peek", ID),
    "open": lambda s: s.call(s.store, "open", ID, strict=True),
    "exists": lambda s: s.call(s.store, "exists", ID),
    "delete": lambda s: s.call(s.store, "delete", ID),
    "touch": lambda s: s.call(s.store, "touch", ID),
    "append": lambda s: s.call(s.store, "append", ID, "user", TEXT),
    "extend": lambda s: s.call(s.store, "extend", ID, [{"a": TEXT}]),
    "list": lambda s: s.call(s.store, "list", OWNER),
    "purge": lambda s: s.call(s.store, "purge", owner=OWNER),
}
# Of a conversation that is loaded.
ASKED_LATER: dict[str, Callable[[Scene], Any]] = {
    "page": lambda s: s.call(s.conversation.messages, "page", 0, 60),
    "find": lambda s: s.call(s.conversation.messages, "find", "none"),
    "redact": lambda s: s.call(s.conversation.messages, "redact", "none"),
    "all": lambda s: s.call(s.conversation.messages, "all"),
    "reload": lambda s: s.call(s.conversation, "reload"),
    "touch": lambda s: s.call(s.conversation, "touch"),
    "delete": lambda s: s.call(s.conversation, "delete"),
    "turn": lambda s: s.call.turn(s.conversation, lambda: None),
    "save": lambda s: s.call(s.change().conversation, "save"),
    "cycle_id": lambda s: s.call(s.change().conversation, "cycle_id"),
}


class TestUnavailable:
    """A server with a password, and a backend without memory to fall back to."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        server = Server(tmp_path, free_ports(1)[0], password=PASSWORD)
        with running([server]):
            yield server

    def url(self, server: Server) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0"

    @pytest.fixture(params=["killed", "refusing"])
    def scene(
        self, request: pytest.FixtureRequest, server: Server, settings: Any, call: Caller
    ) -> Scene:
        store = ConversationStore(on(settings, self.url(server)), window=2)
        scene = Scene(store, call)
        scene.conversation.messages.extend([{"text": TEXT}] * 60)
        scene.conversation.save()
        scene.conversation = store.get(ID)
        store.close()
        if request.param == "killed":
            server.kill()
        else:
            with server.client() as client:
                client.config_set("requirepass", "another")
        return scene

    def test_neither_password_nor_command_is_in_a_report(self, scene: Scene) -> None:
        for name, ask in [*ASKED.items(), *ASKED_LATER.items()]:
            error = failure(BackendUnavailable, partial(ask, scene))
            assert leaks(error) == [], name
            assert any(name.startswith("redis.") for name in modules_of(error)), "it is shown where"

    def test_nor_if_it_does_not_answer_in_time(
        self, server: Server, settings: Any, call: Caller
    ) -> None:
        scene = Scene(ConversationStore(on(settings, self.url(server))), call)
        scene.store = ConversationStore(on(settings, self.url(server), within=0.1))
        server.freeze()
        for name, ask in ASKED.items():
            error = failure(BackendUnavailable, partial(ask, scene))
            assert leaks(error) == [], name
        server.thaw()

    def test_nor_if_the_task_is_cancelled(self, server: Server, settings: Any) -> None:
        store = ConversationStore(on(settings, self.url(server)))

        async def cancelled() -> BaseException:
            conversation = await store.aopen(ID)
            conversation["note"] = TEXT
            server.freeze()
            task = asyncio.create_task(conversation.asave())
            while not is_reading(task):  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError as error:
                return error
            raise AssertionError("it was not cancelled")

        error = asyncio.run(cancelled())
        server.thaw()
        assert leaks(error) == []

    def test_nor_if_the_settings_are_wrong(self, settings: Any, call: Caller) -> None:
        for url in (
            f"redis://:{PASSWORD}@localhost:6379/production",
            f"redis://:{PASSWORD}@localhost:no-port/0",
            f"redis://:{PASSWORD}@localhost:6379/0?db={PASSWORD}",
            f"http://:{PASSWORD}@localhost",
        ):
            store = ConversationStore(on(settings, url))
            error = failure(InvalidBackend, partial(call, store, "get", ID))
            assert leaks(error) == [], url

    def test_nor_if_the_server_repeats_what_it_was_sent(
        self, tmp_path: Path, settings: Any, call: Caller
    ) -> None:
        """Redis answers an unknown command with its first arguments."""
        server = Server(tmp_path, free_ports(1)[0], "--rename-command", "EVALSHA", "")
        with running([server]):
            store = ConversationStore(on(settings, f"redis://127.0.0.1:{server.port}/0"))
            for name, arguments in {"get": (ID,), "append": (ID, "user", TEXT)}.items():
                error = failure(BackendUnavailable, partial(call, store, name, *arguments))
                assert "unknown command" in str(error.__cause__)
                assert leaks(error) == [], name
            store.close()

    def test_nor_if_the_store_is_built_then(self, settings: Any, call: Caller) -> None:
        on(settings, f"redis://:{PASSWORD}@localhost:6379/production")
        store = ConversationStore("redis", cache_alias="own")
        error = failure(InvalidBackend, lambda: call(store, "get", ID))
        assert leaks(error) == []


class Broken(Switched):
    """Raises what a backend should not, once it is switched on."""

    is_broken = False

    def refuse_if(self, is_refused: bool) -> None:
        super().refuse_if(is_refused)
        if self.is_broken:
            self.break_down(TEXT)

    def break_down(self, secret: str) -> None:
        raise LookupError("a backend's own trouble")


class TestLogs:
    """What is logged with a traceback, whose frames a mail to the admins shows."""

    @staticmethod
    def leaks_in(records: list[logging.LogRecord]) -> list[str]:
        logged = [record.exc_info[1] for record in records if record.exc_info]
        assert logged
        found = [leak for error in logged if error is not None for leak in leaks(error, "django")]
        return found + [record.getMessage() for record in records if CANARY in record.getMessage()]

    def test_of_an_observer_that_fails(self, call: Caller, caplog: Any) -> None:
        def observe(*args: object) -> None:
            raise RuntimeError("an observer's own trouble")

        conversation = Scene(conversations, call).change().conversation
        observers.append(observe)
        try:
            failure(ConversationConflict, lambda: call(conversation, "save", expected_version=9))
        finally:
            observers.remove(observe)
        assert self.leaks_in(caplog.records) == []

    def test_of_a_receiver_that_fails(self, call: Caller, caplog: Any) -> None:
        def receive(**kwargs: object) -> None:
            raise RuntimeError("a receiver's own trouble")

        signals.conversation_deleted.connect(receive)
        try:
            Scene(conversations, call)
            assert call(conversations, "delete", ID)
        finally:
            signals.conversation_deleted.disconnect(receive)
        assert self.leaks_in(caplog.records) == []

    @pytest.mark.usefixtures("valkey")
    def test_of_one_that_fails_when_it_is_told_of_damage(self, call: Caller, caplog: Any) -> None:
        def receive(**kwargs: object) -> None:
            raise RuntimeError("a receiver's own trouble")

        store = ConversationStore(get_backend("redis", cache_alias="django_redis"))
        Scene(store, call)
        raw().set(key_of(ID, "meta"), TEXT)
        signals.conversation_quarantined.connect(receive)
        try:
            failure(ConversationCorrupt, lambda: call(store, "get", ID))
        finally:
            signals.conversation_quarantined.disconnect(receive)
            store.close()
        assert self.leaks_in(caplog.records) == []

    def test_of_a_backend_that_fails_when_it_is_back(self, call: Caller, caplog: Any) -> None:
        primary = Broken()
        backend = FailoverBackend(primary, LocMemBackend(max_conversations=10**6))
        scene = Scene(ConversationStore(backend), call)
        primary.away = True
        call(scene.change().conversation, "save")
        primary.is_broken = True
        primary.away = False
        wait_until(lambda: "unexpected error" in caplog.text)
        primary.is_broken = False
        backend.close()
        assert backend.health().pending_replay == 0
        assert self.leaks_in(caplog.records) == []

    def test_of_a_replay_that_fails(self, call: Caller, caplog: Any) -> None:
        primary = Broken()
        backend = FailoverBackend(primary, LocMemBackend(max_conversations=10**6))
        scene = Scene(ConversationStore(backend), call)
        primary.away = True
        call(scene.change().conversation, "save")
        commit = primary.commit

        def commit_all_but_this(id: str, change: Any) -> Any:
            if id == ID and primary.is_broken:
                primary.break_down(TEXT)
            return commit(id, change)

        primary.commit = commit_all_but_this  # type: ignore[method-assign]
        vars(primary)["is_broken"] = True
        primary.refuse_if = partial(Switched.refuse_if, primary)  # type: ignore[method-assign]
        primary.away = False
        wait_until(lambda: "Replay of conversation" in caplog.text)
        primary.is_broken = False
        backend.close()
        assert backend.health().pending_replay == 0
        assert self.leaks_in(caplog.records) == []

    def test_of_a_load_that_cannot_be_made_up_for(self, call: Caller, caplog: Any) -> None:
        primary = Broken()
        backend = FailoverBackend(primary, LocMemBackend(max_conversations=10**6))
        scene = Scene(ConversationStore(backend), call)
        primary.away = True
        call(scene.store, "get", ID)

        def touch(id: str, ttl: float | None = None) -> bool:
            primary.break_down(TEXT)
            return True

        primary.touch = touch  # type: ignore[method-assign]
        primary.away = False
        wait_until(lambda: "Recovery of the" in caplog.text)
        backend.close()
        assert self.leaks_in(caplog.records) == []


def is_reading(task: "asyncio.Task[Any]") -> bool:
    """Tell whether a task waits for a reply: of redis-py's stream, or of hiredis."""
    awaited: Any = task.get_coro()
    before: Any = None
    while inspect.iscoroutine(awaited):
        if awaited.__qualname__.endswith("read_response"):
            return True
        before, awaited = awaited, awaited.cr_await
    return awaited is not None and before.__qualname__ == "AsyncConnectionStack.execute"


def modules_of(error: BaseException) -> set[str]:
    return {
        entry.tb_frame.f_globals["__name__"]
        for each in errors_of(error)
        for entry in frames_of(each)
    }


def has_locals(error: BaseException, function: str) -> bool:
    """Tell whether the frame of a function is there, with its locals."""
    return any(
        entry.tb_frame.f_code.co_name == function and bool(entry.tb_frame.f_locals)
        for each in errors_of(error)
        for entry in frames_of(each)
    )


def ask_model(prompt: str) -> str:
    raise RuntimeError("the model is overloaded")


class TestWhatIsKept:
    """What a report is for: functions, lines, and the locals of the project's own code."""

    def test_functions_and_lines(self) -> None:
        error = failure(
            InvalidConversationType, lambda: conversations.create().messages.append("user", {1})
        )
        names = functions_of(error)
        assert names[-2:] == ["_plain", "_plain"] or "encode" in names
        assert {"Messages.append", "MessageLog.append", "encode"} <= set(names)

    def test_locals_of_the_block_of_a_turn(self, call: Caller) -> None:
        conversation = conversations.create()
        error = failure(RuntimeError, lambda: call.turn(conversation, partial(ask_model, "hi")))
        assert has_locals(error, "ask_model")

    def test_locals_of_what_makes_the_chunks_of_a_stream(self) -> None:
        def chunks() -> Iterator[str]:
            yield TEXT
            yield ask_model("hi")

        messages = conversations.create().messages
        error = failure(RuntimeError, lambda: list(messages.stream("assistant", chunks())))
        assert has_locals(error, "ask_model")
        assert leaks(error) == []
        assert messages[0]["interrupted"]

    async def test_locals_of_what_makes_them_in_async_code(self) -> None:
        async def chunks() -> AsyncIterator[str]:
            yield TEXT
            yield ask_model("hi")

        messages = conversations.create().messages
        with pytest.raises(RuntimeError) as caught:
            async for _ in messages.stream("assistant", chunks()):
                pass
        assert has_locals(caught.value, "ask_model")
        assert leaks(caught.value) == []

    def test_locals_of_an_error_that_is_being_handled(self, call: Caller) -> None:
        def handle() -> None:
            try:
                ask_model("hi")
            except RuntimeError:
                call(conversations, "get", "missing")

        error = failure(ConversationNotFound, handle)
        assert isinstance(error.__context__, RuntimeError)
        assert has_locals(error.__context__, "ask_model")

    async def test_locals_of_one_that_async_code_is_handling(self) -> None:
        """There asgiref raises it once more, in the thread where sync code is run."""
        store = ConversationStore("cache")
        with pytest.raises(ConversationNotFound) as caught:
            try:
                ask_model("hi")
            except RuntimeError:
                await store.aget("missing")
        assert has_locals(caught.value, "ask_model")


class Api:
    """Functions of each kind."""

    def function(self, secret: str) -> None:
        raise ValueError("no")

    async def coroutine(self, secret: str) -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    def generator(self, secret: str) -> Iterator[int]:
        yield 1
        raise ValueError("no")

    async def async_generator(self, secret: str) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0)
        raise ValueError("no")


class Clearing(Api):
    function = clears_locals(Api.function)
    coroutine = clears_locals(Api.coroutine)
    generator = clears_locals(Api.generator)
    async_generator = clears_locals(Api.async_generator)


class TestDecorator:
    async def test_functions_of_each_kind(self) -> None:
        api = Clearing()
        calls: list[Any] = [
            lambda: api.function(TEXT),
            lambda: list(api.generator(TEXT)),
            lambda: api.coroutine(TEXT),
            lambda: anext_twice(api.async_generator(TEXT)),
        ]
        for each in calls:
            with pytest.raises(ValueError, match="no") as caught:
                result = each()
                if inspect.isawaitable(result):
                    await result
            clear_of_test = leaks(caught.value, __name__)
            assert [leak for leak in clear_of_test if "secret" in leak] == []
            assert "Api." in str(functions_of(caught.value))

    @pytest.mark.parametrize("name", ["function", "coroutine", "generator", "async_generator"])
    def test_they_look_the_same(self, name: str) -> None:
        plain, clearing = getattr(Api, name), getattr(Clearing, name)
        assert inspect.signature(plain) == inspect.signature(clearing)
        for is_kind in (
            inspect.iscoroutinefunction,
            inspect.isgeneratorfunction,
            inspect.isasyncgenfunction,
        ):
            assert is_kind(plain) == is_kind(clearing)

    async def test_a_generator_that_is_left_early_is_closed(self) -> None:
        closed = []

        @clears_locals
        async def numbers() -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                closed.append(1)

        generator: Any = numbers()
        assert await anext(generator) == 1
        await generator.aclose()
        assert closed == [1]

    def test_only_our_own_frames(self) -> None:
        @clears_own_locals
        def runs(code: Callable[[str], str], secret: str) -> str:
            return code("hi")

        error = failure(RuntimeError, lambda: runs(ask_model, TEXT))
        assert has_locals(error, "ask_model")

    def test_what_is_suspended_goes_on(self) -> None:
        """An error that a generator has caught, and somebody has kept, is cleared by another."""
        kept: list[BaseException] = []

        def patient(secret: str) -> Iterator[str]:
            try:
                raise ValueError("caught")
            except ValueError as error:
                kept.append(error)
            yield secret
            yield secret

        generator = patient(TEXT)
        assert next(generator) == TEXT
        clear_locals(kept[0])
        assert next(generator) == TEXT

    def test_a_task_that_is_suspended_goes_on(self) -> None:
        async def patient(kept: list[BaseException]) -> str:
            text = TEXT
            for _ in range(3):
                try:
                    async with asyncio.timeout(0):
                        await asyncio.sleep(60)
                except TimeoutError as error:
                    kept.append(error)
                await asyncio.sleep(0)
            return text

        async def main() -> str:
            kept: list[BaseException] = []
            task = asyncio.create_task(patient(kept))
            while not task.done():
                for error in kept:
                    clear_locals(error)
                await asyncio.sleep(0)
            return await task

        assert asyncio.run(main()) == TEXT

    def test_linked_errors_and_groups(self) -> None:
        def lowest(secret: str) -> None:
            raise KeyError("lowest")

        def lower(secret: str) -> None:
            try:
                lowest(secret)
            except KeyError as error:
                raise ValueError("lower") from error

        @clears_locals
        def grouped(secret: str) -> None:
            try:
                lower(secret)
            except ValueError as error:
                raise ExceptionGroup("all", [error, TypeError("never raised")]) from None

        error = failure(ExceptionGroup, lambda: grouped(TEXT))
        assert {"lowest", "lower"} <= {name.split(".")[-1] for name in functions_of(error)}
        assert [leak for leak in leaks(error, __name__) if "secret" in leak] == []

    def test_for_a_log_the_frame_that_has_caught_it_is_left_out(self) -> None:
        def fails(secret: str) -> None:
            raise ValueError("no")

        secret = TEXT
        try:
            fails(secret)
        except ValueError as error:
            logged = without_locals(error)
        assert [name.split(".")[-1] for name in functions_of(logged)] == ["fails"]
        assert not has_locals(logged, "fails")
        assert secret == TEXT


async def anext_twice(generator: Any) -> None:
    await anext(generator)
    await anext(generator)


def test_a_hidden_string_is_as_good_as_a_plain_one() -> None:
    hidden = Hidden(TEXT)
    assert CANARY not in repr(hidden)
    assert CANARY not in repr({"token": hidden})
    assert hidden == TEXT
    assert {TEXT: 1}[hidden] == 1
    assert f"{hidden}" == str(hidden) == TEXT
    assert pickle.loads(pickle.dumps(hidden)) == TEXT
