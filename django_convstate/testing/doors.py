"""How the contract's tests enter a backend: by its methods, and by their asyncio twins."""

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from asgiref.sync import async_to_sync

from ..backends.base import ConversationStateBackend
from ..backends.records import Change, Create, Record
from ..ids import new_id


class Door:
    """A backend whose every method is a coroutine, whichever of the twins it enters by."""

    def __init__(self, backend: ConversationStateBackend, by_twin: bool) -> None:
        self.backend = backend
        self.by_twin = by_twin

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.backend, f"a{name}" if self.by_twin else name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if name == "scan":
                return [item async for item in result] if self.by_twin else list(result)
            return await result if self.by_twin else result

        return call


S = TypeVar("S", bound="Scenarios")


def both_ways(scenario: Callable[[S, Door], Coroutine[Any, Any, None]]) -> Callable[[S], None]:
    """Make a test method that runs `scenario` by the methods and then by their twins."""

    def test(self: S) -> None:
        for by_twin in (False, True):
            backend = self.make_backend()
            try:
                run = async_to_sync(scenario) if by_twin else _without_event_loop(scenario)
                run(self, Door(backend, by_twin))
            except BaseException as error:
                error.add_note(f"through the {'asyncio twins' if by_twin else 'sync methods'}")
                raise
            finally:
                backend.close()

    test.__name__ = scenario.__name__
    test.__doc__ = scenario.__doc__
    return test


def _without_event_loop(
    scenario: Callable[[S, Door], Coroutine[Any, Any, None]],
) -> Callable[[S, Door], None]:
    def run(self: S, door: Door) -> None:
        try:
            scenario(self, door).send(None)
        except StopIteration:
            return
        raise AssertionError("a sync method must not wait for an event loop")

    return run


@contextmanager
def refused(error: type[Exception]) -> Iterator[None]:
    """Expect `error`."""
    try:
        yield
    except error:
        return
    raise AssertionError(f"{error.__name__} was not raised")


def wait(seconds: float) -> None:
    """Let time pass, in the event loop too: nothing else is to happen meanwhile."""
    time.sleep(seconds)


def message(number: int) -> bytes:
    return b'{"role":"user","content":"%d"}' % number


class Scenarios:
    """Where scenarios get a backend, and conversations in it."""

    # By how many seconds at most the backend is late in letting go of what has expired.
    expiry_slack: ClassVar[float] = 0.0

    def make_backend(self, **options: Any) -> ConversationStateBackend:
        """Return a backend, built with `options`, that may share its place with others."""
        raise NotImplementedError

    async def load(self, door: Door, id: str, window: int = 50) -> Record:
        record = await door.load(id, window)
        assert record is not None, "there is no such conversation"
        assert isinstance(record, Record)
        return record

    async def stored(self, door: Door, **change: Any) -> str:
        """Store a conversation and return its id."""
        id = new_id()
        defaults: dict[str, Any] = {"create": Create.MUST_BE_NEW, "ttl": 60.0}
        await door.commit(id, Change(**defaults | change))
        return id
