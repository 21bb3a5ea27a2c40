"""Two processes do anything to a few conversations. Whatever one of them knows, it loads what is
stored."""

import asyncio
import math
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from django_convstate.backends.failover import FailoverBackend, exact, snapshot
from django_convstate.backends.records import Change, Diverged, Replacement
from django_convstate.backends.redis.backend import RedisBackend
from django_convstate.backends.toolkit.writer import Writer, lone_commit
from django_convstate.exceptions import ConversationError
from django_convstate.ids import new_id
from tests.backends.failover.test_etags import assert_same, process
from tests.support.messages import pairs
from tests.support.redis import key_of, raw

pytestmark = pytest.mark.usefixtures("valkey")

KEYS = ["a", "b", "n"]
GIVEN = ["theirs", "too", "00000000000000000001"]
VALUES = [b"1", b"{}", b"22", b"-3"]


@pytest.fixture
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator["Machine"]:
    for module in (exact, snapshot):  # so that messages leave what is known
        monkeypatch.setattr(module, "KEPT_MESSAGES", 8)
    machine = Machine(random.Random(request.param))
    yield machine
    for backend in (*machine.processes, machine.plain):
        backend.close()


class Machine:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.plain = RedisBackend(cache_alias="django_redis")
        self.processes = [process(), process()]
        self.writers = [Writer(), Writer()]
        self.ids = [new_id(), new_id()]
        self.sent: list[tuple[str, Change]] = []
        self.spared = 0
        self.numbers = count()
        operations: dict[Callable[[FailoverBackend, str], object], int] = {
            self.commit: 30,
            self.load: 10,
            self.acquire: 5,
            self.send_again: 4,
            self.touch: 2,
            self.delete: 1,
            self.rename: 1,
            self.restore: 1,
            self.forget_etag: 1,
        }
        self.operations, self.weights = list(operations), list(operations.values())

    def run(self, steps: int) -> None:
        for _ in range(steps):
            operation = self.rng.choices(self.operations, self.weights)[0]
            backend, id = self.rng.choice(self.processes), self.rng.choice(self.ids)
            with suppress(ConversationError, Diverged):
                operation(backend, id)
            checked = self.processes if self.rng.random() < 0.5 else [backend]
            for each in checked:
                self.check(each, id)

    def check(self, backend: FailoverBackend, id: str) -> None:
        window = self.rng.choice([1, 2, 4, 6, 20])
        known = backend._known.exact(id, window)
        loaded = backend.load(id, window)
        peeked = self.plain.peek(id, window)
        assert_same(loaded, peeked)
        if known is not None and loaded is not None:
            self.spared += known.etag == loaded.etag

    def load(self, backend: FailoverBackend, id: str) -> None:
        record = backend.load(id, self.rng.randint(1, 9))
        if record is not None:  # which is the caller's
            record.state["changed"] = b"by the caller"
            record.messages.packed.clear()  # type: ignore[attr-defined]

    def commit(self, backend: FailoverBackend, id: str) -> None:
        change = self.change(backend, id)
        self.sent.append((id, change))
        if self.rng.random() < 0.8:
            backend.commit(id, change)
        else:
            asyncio.run(self.acommit(backend, id, change))

    async def acommit(self, backend: FailoverBackend, id: str, change: Change) -> None:
        try:
            await backend.acommit(id, change)
        finally:
            await backend.aclose()

    def send_again(self, backend: FailoverBackend, id: str) -> None:
        """As where the answer was lost; perhaps with what was merged meanwhile."""
        if self.sent:
            id, change = self.rng.choice(self.sent[-6:])
            backend.commit(id, change)

    def change(self, backend: FailoverBackend, id: str) -> Change:
        rng, record = self.rng, self.plain.peek(id, 6)
        there = [message_id for message_id, _ in record.messages] if record else []
        append = [(self.message_id(there), self.body()) for _ in range(rng.choice([0, 1, 2, 2, 5]))]
        more: dict[str, Any] = {}
        if rng.random() < 0.15:
            more["keep_messages"] = rng.randint(0, 12)
        if rng.random() < 0.15:
            more |= {"max_messages": rng.randint(1, 12), "drop_oldest": rng.random() < 0.8}
        if there and rng.random() < 0.1:
            more["replace"] = [Replacement(id=rng.choice(there), old=None, new=self.body())]
        if rng.random() < 0.2:
            more["increment"] = {rng.choice(KEYS): rng.randint(-9, 9)}
        if rng.random() < 0.1:
            more["owner"] = rng.choice(["u1", "u1", "u2"])
        if rng.random() < 0.1:
            more["ttl"] = rng.choice([600.0, 1234.5, math.inf])
        if rng.random() < 0.2:
            more["expected"] = {rng.choice(KEYS): rng.choice([None, *VALUES])}
        writer = self.writers[self.processes.index(backend)]
        return Change(
            set={key: rng.choice(VALUES) for key in KEYS if rng.random() < 0.3},
            unset=[key for key in KEYS if rng.random() < 0.1],
            append=append,
            once=[each for each, _ in append if each in (*GIVEN, *there)],
            window=rng.choice([0, 3]),
            commit=writer.begin(id) if rng.random() < 0.8 else lone_commit(),
            **more,
        )

    def message_id(self, there: list[str]) -> str:
        [(fresh, _)] = pairs(b"")
        ahead = f"{int(fresh, 16) + (3600_000 << 32):020x}"
        return self.rng.choice([fresh] * 8 + [ahead, *GIVEN, *there[:2]])

    def body(self) -> bytes:
        return b"[%d]" % next(self.numbers)

    def acquire(self, backend: FailoverBackend, id: str) -> None:
        window = self.rng.randint(1, 9)
        acquired = backend.acquire(id, "lease", 5.0, window)
        assert_same(acquired.record, self.plain.peek(id, window))
        if acquired.record is not None and self.rng.random() < 0.7:
            change = replace(self.change(backend, id), lease="lease", release=True)
            with suppress(ConversationError, Diverged):
                backend.commit(id, change)
        backend.release(id, "lease")

    def touch(self, backend: FailoverBackend, id: str) -> None:
        backend.touch(id, self.rng.choice([None, 600.0, 77.7, math.inf]))

    def delete(self, backend: FailoverBackend, id: str) -> None:
        backend.delete(id)

    def rename(self, backend: FailoverBackend, id: str) -> None:
        other_id = new_id()
        backend.rename(id, other_id)
        self.check(self.rng.choice(self.processes), other_id)
        if self.rng.random() < 0.5:
            with suppress(ConversationError, Diverged):
                self.commit(backend, other_id)
        self.rng.choice(self.processes).rename(other_id, id)

    def restore(self, backend: FailoverBackend, id: str) -> None:
        record = self.plain.peek(id, 100)
        if record is not None:
            there = [(message_id, self.body()) for message_id, _ in record.messages]
            backend.restore(id, record, there, replaces=record.version)

    def forget_etag(self, backend: FailoverBackend, id: str) -> None:
        raw().hdel(key_of(id, "meta"), "h")


SEEDS = [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 40))]


@pytest.mark.parametrize("machine", SEEDS, indirect=True)
def test_what_is_loaded_is_what_is_stored(machine: Machine) -> None:
    machine.run(300)
    assert machine.spared > 50, "or nothing was tried"
