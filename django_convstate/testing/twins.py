"""How the scenarios of the contract call a backend: its methods, then their asyncio twins."""

import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar, Final, TypeVar
from unittest import TestCase

from asgiref.sync import async_to_sync
from django.db import connections

from ..backends.base import ConversationStateBackend
from ..backends.records import Change, Create, Record
from ..backends.toolkit.packed import Pair
from ..ids import new_id

_FIRST_KEY: Final = 1_735_689_600_000 << 32  # the first moment of 2025


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
T = TypeVar("T")
Scenario = Callable[[S, Twin], Coroutine[Any, Any, None]]


def both_twins(scenario: Scenario[S]) -> Callable[[S], None]:
    """Make a test method that runs `scenario` with the methods and then with their twins."""

    def test(self: S) -> None:
        for uses_twins in (False, True):
            backend = self.make_backend()
            try:
                run = async_to_sync(scenario) if uses_twins else partial(_run_sync, scenario)
                run(self, Twin(backend, uses_twins))
            except BaseException as error:
                error.add_note(f"with the {'asyncio twins' if uses_twins else 'sync methods'}")
                raise
            finally:
                backend.close()

    test.__name__ = scenario.__name__
    test.__doc__ = scenario.__doc__
    return test


def _run_sync(scenario: Scenario[S], self: S, backend: Twin) -> None:
    try:
        scenario(self, backend).send(None)
    except StopIteration:
        return
    raise AssertionError("a sync method must not wait for an event loop")


def refused(error: type[Exception]) -> AbstractContextManager[Any]:
    """Expect `error`."""
    return TestCase().assertRaises(error)  # noqa: PT027 - pytest is not needed for the contract


def in_threads(count: int, function: Callable[[int], T]) -> list[T]:
    """Call `function` with each number below `count`, in a thread each, and return the results."""

    def call(number: int) -> T:
        try:
            return function(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def wait(seconds: float) -> None:
    """Let time pass, and block the event loop, so that nothing else happens in it meanwhile."""
    time.sleep(seconds)


def message(number: int) -> Pair:
    """Return a message: its id, which is a sort key above that of the numbers below, and bytes."""
    return f"{_FIRST_KEY + number:020x}", b'{"role":"user","content":"%d"}' % number


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
        assert isinstance(record, Record), "there is no such conversation"
        return record

    async def check(self, backend: Twin, id: str, window: int = 50, /, **expected: Any) -> None:
        """Compare fields of the record of a conversation with what is expected of them."""
        record = await self.load(backend, id, window)
        found = {name: getattr(record, name) for name in expected}
        assert found == expected, found

    async def stored(self, backend: Twin, **change: Any) -> str:
        """Store a conversation and return its id."""
        id = new_id()
        defaults: dict[str, Any] = {"create": Create.MUST_BE_NEW, "ttl": 60.0}
        await backend.commit(id, Change(**defaults | change))
        return id
