"""How the scenarios of the contract call a backend: its methods, then their asyncio twins."""

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from asgiref.sync import async_to_sync

from ..backends.base import ConversationStateBackend
from ..backends.records import Change, Create, Record
from ..ids import new_id


class Twin:
    """A backend each of whose methods is a coroutine: of the sync method, or of its twin."""

    def __init__(self, wrapped: ConversationStateBackend, uses_twins: bool) -> None:
        self.wrapped = wrapped
        self.uses_twins = uses_twins

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.wrapped, f"a{name}" if self.uses_twins else name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if name == "scan":
                return [item async for item in result] if self.uses_twins else list(result)
            return await result if self.uses_twins else result

        return call


S = TypeVar("S", bound="Scenarios")


def both_twins(
    scenario: Callable[[S, Twin], Coroutine[Any, Any, None]],
) -> Callable[[S], None]:
    """Make a test method that runs `scenario` with the methods and then with their twins."""

    def test(self: S) -> None:
        for uses_twins in (False, True):
            backend = self.make_backend()
            try:
                run = async_to_sync(scenario) if uses_twins else _without_event_loop(scenario)
                run(self, Twin(backend, uses_twins))
            except BaseException as error:
                error.add_note(f"with the {'asyncio twins' if uses_twins else 'sync methods'}")
                raise
            finally:
                backend.close()

    test.__name__ = scenario.__name__
    test.__doc__ = scenario.__doc__
    return test


def _without_event_loop(
    scenario: Callable[[S, Twin], Coroutine[Any, Any, None]],
) -> Callable[[S, Twin], None]:
    def run(self: S, backend: Twin) -> None:
        try:
            scenario(self, backend).send(None)
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
    """Let time pass, and block the event loop, so that nothing else happens in it meanwhile."""
    time.sleep(seconds)


def message(number: int) -> bytes:
    """Return an encoded message."""
    return b'{"role":"user","content":"%d"}' % number


class Scenarios:
    """What all parts of the contract need: a backend, and conversations in it."""

    # By how many seconds at most the backend is late in dropping what has expired.
    expiry_slack: ClassVar[float] = 0.0

    def make_backend(self, **options: Any) -> ConversationStateBackend:
        """Return a backend, built with `options`. It may share its storage with others."""
        raise NotImplementedError

    async def load(self, backend: Twin, id: str, window: int = 50) -> Record:
        """Return the record of a conversation that has to be there."""
        record = await backend.load(id, window)
        assert record is not None, "there is no such conversation"
        assert isinstance(record, Record)
        return record

    async def stored(self, backend: Twin, **change: Any) -> str:
        """Store a conversation and return its id."""
        id = new_id()
        defaults: dict[str, Any] = {"create": Create.MUST_BE_NEW, "ttl": 60.0}
        await backend.commit(id, Change(**defaults | change))
        return id
