"""By how many bytes the resident memory of a process grows when it is given twice what a bound
allows. A script, because only a new process has no memory that is free already.

    DJANGO_SETTINGS_MODULE=tests.settings python -m tests.support.growth locmem "tiny keys"
"""

import ctypes
import gc
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import django

from django_convstate import BackendUnavailable, ConversationStore
from django_convstate.backends.failover import FailoverBackend
from django_convstate.backends.failover.last_known import LastKnownCache
from django_convstate.backends.locmem import LocMemBackend
from django_convstate.backends.records import Change, Committed
from tests.support.backends import Switched

BOUND: Final = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is in a conversation: keys and messages, each of a length. It is saved several times."""

    key: str = "k{}"
    keys: int = 0
    messages: int = 0
    has_ids: bool = False
    length: int = 1
    saves: int = 1

    def fill(self, store: ConversationStore) -> str:
        conversation = store.create()
        for _ in range(self.saves):
            for number in range(self.keys):
                conversation[self.key.format(number)] = "x" * self.length
            for number in range(self.messages):
                id = f"{number}" if self.has_ids else None
                conversation.messages.append("user", "x" * self.length, id=id)
            conversation.save()
        return conversation.id

    @property
    def memory(self) -> int:
        """At most that much it takes, roughly."""
        return self.saves * ((self.keys + self.messages) * (self.length + 100) + 1000)


SHAPES: Final = {
    "tiny keys": Shape(keys=500),
    "wide characters": Shape(key="k{}\N{ROBOT FACE}", keys=500),
    "tiny messages": Shape(messages=500),
    "ids of their own": Shape(messages=50, has_ids=True),
    "tiny conversations": Shape(keys=1, messages=1),
    "many saves": Shape(keys=1, messages=1, saves=10),
    "huge values": Shape(keys=1, messages=1, length=60_000),
}
Add = Callable[[], object]  # one conversation more


def locmem(shape: Shape) -> Add:
    store = ConversationStore(LocMemBackend(max_conversations=10**6, max_bytes=BOUND))
    return lambda: shape.fill(store)


def loaded(shape: Shape) -> Add:
    known = LastKnownCache(10**6, BOUND, None, 600)

    def load() -> None:
        primary = LocMemBackend()
        id = shape.fill(ConversationStore(primary))
        known.put(id, primary.load(id, 10_000), known.era)

    return load


def saved(shape: Shape) -> Add:
    primary = LocMemBackend(max_conversations=2)
    store = ConversationStore(FailoverBackend(primary, LocMemBackend(), known_bytes=BOUND))
    return lambda: shape.fill(store)


class WithEtags(LocMemBackend):
    """Gives each commit an etag, as Redis does. It is none to which a load is compared."""

    def commit(self, id: str, change: Change) -> Committed:
        committed = super().commit(id, change)
        committed.etag = f"{id}{committed.version}".encode()
        committed.follows = f"{id}{committed.version - 1}".encode() * (committed.version > 1)
        committed.modified_at = time.time()
        return committed


def exact(shape: Shape) -> Add:
    primary = WithEtags(max_conversations=2)
    store = ConversationStore(FailoverBackend(primary, LocMemBackend(), known_bytes=BOUND))
    return lambda: shape.fill(store)


def journal(shape: Shape) -> Add:
    primary = Switched()
    primary.away = True
    store = ConversationStore(FailoverBackend(primary, LocMemBackend(), journal_bytes=BOUND))
    return lambda: shape.fill(store)


def resident() -> int:
    """Return the bytes of memory that this process has, without those that are free."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def main(what: str, name: str) -> None:
    django.setup()
    logging.disable()
    kinds = {kind.__name__: kind for kind in (locmem, loaded, saved, exact, journal)}
    begin, shape = kinds[what], SHAPES[name]
    begin(shape)()  # what is imported or made at the first use does not count
    add = begin(shape)
    before = resident()
    try:
        for _ in range(2 * BOUND // shape.memory + 1):
            add()
    except BackendUnavailable as error:
        if "is full" not in str(error):
            raise
    else:
        if what == "journal":
            raise AssertionError("The journal is not full.")
    sys.stdout.write(f"{resident() - before}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
