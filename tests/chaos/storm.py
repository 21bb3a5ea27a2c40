"""Worker processes in a storm: `python -m tests.chaos.storm CACHE DIRECTORY PROCESSES WRITES SEED`
forks so many, which write into the same conversations from three threads each.

Each thread is a writer of its own. It writes until so many of its writes are acknowledged, and
notes in a file under its number, for each write, what it is about to do, and what became of it.
"""

import json
import logging
import os
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from django.conf import settings

TEXT = "text-5d02c7"  # as in world.py, which workers need not import
THREADS = 3
PAUSE = 0.02  # seconds at most between two writes of one thread
# And in an outage: memory takes more than can be replayed at the same time, and the storm would be
# one outage.
DEGRADED_PAUSE = 0.1
PATIENCE = 75  # seconds for what is to be replayed
# Probes come soon. With the real pauses, of up to 30 s after an outage that recurs, a storm would
# be one long outage.
PROBE_WAITS = 0.1, 0.3


@dataclass
class Message:
    """What is stored of one: its writer, the number of the write, and that of its last edit."""

    writer: int
    number: int
    edit: int | None


@dataclass
class Found:
    """What is stored of a conversation."""

    messages: list[Message]
    state: dict[str, Any]

    @classmethod
    def of(cls, id: str, state: dict[str, Any], messages: Iterable[Any]) -> "Found":
        found = []
        for message in messages:
            text, whose, writer, number = str(message["content"]).split("/")
            assert (text, whose) == (TEXT, id), "somebody else's"
            found.append(Message(int(writer), int(number), message.get("edit")))
        return cls(found, state)


@dataclass
class Notes:
    """What the writers have noted. Each write has a number, which grows along its writer."""

    # (id, writer, kind): the numbers of the writes.
    said: dict[tuple[str, int, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    acknowledged: dict[tuple[str, int, str], list[int]] = field(
        default_factory=lambda: defaultdict(list)
    )
    # (id, writer, number of the message): the numbers of its edits.
    edits: dict[tuple[str, int, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, directory: Path) -> "Notes":
        notes = cls()
        for file in directory.glob("writer-*"):
            writer = int(file.name.removeprefix("writer-"))
            for line in file.read_text().splitlines():
                outcome, kind, id, number, edited = line.split()
                if outcome == "said":
                    notes.said[id, writer, kind].append(int(number))
                    continue
                notes.outcomes[outcome] += 1
                if outcome in ("acknowledged", "degraded"):
                    notes.kinds[kind] += 1
                    notes.acknowledged[id, writer, kind].append(int(number))
                    if kind == "edit":
                        notes.edits[id, writer, int(edited)].append(int(number))
        return notes

    @property
    def count(self) -> int:
        """How many writes were acknowledged."""
        return self.outcomes["acknowledged"] + self.outcomes["degraded"]

    @property
    def ids(self) -> set[str]:
        return {id for id, _, _ in self.said}


APPENDING = ("say", "turn", "append")  # kinds of writes that add a message
COUNTED = ("say", "turn")  # and add to a counter, and set a key, in the same commit


@dataclass
class Damage:
    """What a storm must not do to what was acknowledged."""

    lost: int = 0
    duplicated: int = 0
    disordered: int = 0
    without_ttl: int = 0

    def look_at(self, id: str, found: Found, notes: Notes) -> None:
        """Compare what is stored of a conversation with what was acknowledged."""
        stored = [(message.writer, message.number) for message in found.messages]
        self.duplicated += len(stored) - len(set(stored))
        # As many as there are messages that came with it, whether these were acknowledged or not.
        counted = {
            (writer, number)
            for (of, writer, kind), numbers in notes.said.items()
            if of == id and kind in COUNTED
            for number in numbers
        }
        turns, expected = found.state.get("turns", 0), sum(each in counted for each in stored)
        self.duplicated += max(0, turns - expected)
        self.lost += max(0, expected - turns)
        for writer in {writer for of, writer, _ in notes.said if of == id}:
            self._look_at_writer(id, writer, found, notes)

    def _look_at_writer(self, id: str, writer: int, found: Found, notes: Notes) -> None:
        own = [message for message in found.messages if message.writer == writer]
        numbers = [message.number for message in own]
        self.disordered += sum(later < earlier for earlier, later in pairwise(numbers))
        said = {n for kind in APPENDING for n in notes.said[id, writer, kind]}
        acknowledged = {n for kind in APPENDING for n in notes.acknowledged[id, writer, kind]}
        assert set(numbers) <= said, "something nobody has said"
        self.lost += len(acknowledged - set(numbers))
        # Of what replaces what was there, the last that was acknowledged is there, or a later one.
        for kinds, value in [
            (COUNTED, found.state.get(f"key-{writer}")),
            (("nest",), (found.state.get("nested") or {}).get(str(writer))),
        ]:
            told = [n for kind in kinds for n in notes.acknowledged[id, writer, kind]]
            self.lost += bool(told) and (value is None or value < max(told))
        for message in own:
            told = notes.edits[id, writer, message.number]
            self.lost += bool(told) and (message.edit is None or message.edit < max(told))
        tally = found.state.get(f"tally-{writer}", 0)
        self.lost += max(0, len(notes.acknowledged[id, writer, "nest"]) - tally)
        self.duplicated += max(0, tally - len(notes.said[id, writer, "nest"]))


class Writer:
    """One thread of a worker."""

    def __init__(
        self, store: Any, directory: Path, number: int, ids: list[str], writes: int, seed: str
    ) -> None:
        self._store = store
        self._number = number
        self._ids = ids
        self._writes = writes
        self._random = random.Random(f"{seed}/{number}")
        self._file = directory / f"writer-{number}"
        self._said = self._acknowledged = 0
        # The last message in each conversation that was acknowledged: its id, and its number.
        self._last: dict[str, tuple[str, int]] = {}
        self._kinds: dict[str, Callable[[str], bool]] = {
            "say": self._say,
            "turn": self._turn,
            "append": self._append,
            "nest": self._nest,
            "edit": self._edit,
        }

    def run(self) -> None:
        from django_convstate import BackendUnavailable, ConversationBusy, ConversationConflict

        with self._file.open("w", buffering=1) as notes:
            while self._acknowledged < self._writes:
                id, self._said = self._random.choice(self._ids), self._said + 1
                (kind,) = self._random.choices([*self._kinds], [4, 2, 3, 2, 2])
                if kind == "edit" and id not in self._last:
                    continue
                edited = self._last[id][1] if kind == "edit" else 0
                about, pause = f"{kind} {id} {self._said} {edited}\n", PAUSE
                notes.write(f"said {about}")
                try:
                    degraded = self._kinds[kind](id)
                except (BackendUnavailable, ConversationBusy, ConversationConflict) as error:
                    # A conflict is that a turn was taken for dead.
                    notes.write(f"{type(error).__name__} {about}")
                else:
                    self._acknowledged += 1
                    notes.write(f"{'degraded' if degraded else 'acknowledged'} {about}")
                    pause = DEGRADED_PAUSE if degraded else PAUSE
                time.sleep(self._random.uniform(0, pause))

    def _text(self, id: str) -> str:
        return f"{TEXT}/{id}/{self._number}/{self._said}"

    def _add(self, conversation: Any) -> str:
        message_id = conversation.messages.append("user", self._text(conversation.id))
        conversation.incr("turns")
        conversation[f"key-{self._number}"] = self._said
        return str(message_id)

    def _say(self, id: str) -> bool:
        conversation = self._store.open(id)
        message_id = self._add(conversation)
        conversation.save()
        self._last[id] = message_id, self._said
        return bool(conversation.degraded)

    def _turn(self, id: str) -> bool:
        conversation = self._store.open(id)
        with conversation.turn(timeout=5):
            message_id = self._add(conversation)
        self._last[id] = message_id, self._said
        return bool(conversation.degraded)

    def _append(self, id: str) -> bool:
        """Add a message without a load, under an id of its own, as a webhook does."""
        message_id = f"given-{self._number}-{self._said}"
        self._store.append(id, "tool", self._text(id), id=message_id)
        self._last[id] = message_id, self._said
        return False  # as far as one is told

    def _nest(self, id: str) -> bool:
        """Change a value in a dictionary in which the others change theirs."""
        conversation = self._store.open(id)
        conversation.setdefault("nested", {})[str(self._number)] = self._said
        conversation.incr(f"tally-{self._number}")
        conversation.save()
        return bool(conversation.degraded)

    def _edit(self, id: str) -> bool:
        message_id, _ = self._last[id]
        conversation = self._store.open(id)
        conversation.messages.update(message_id, edit=self._said)
        conversation.save()
        return bool(conversation.degraded)


def work(directory: Path, number: int, ids: list[str], writes: int, seed: str) -> None:
    from django_convstate import ConversationStore, signals
    from django_convstate.backends.failover import breaker

    breaker.SHORTEST_PROBE_WAIT, breaker.LONGEST_PROBE_WAIT = PROBE_WAITS  # type: ignore[misc]
    log = logging.FileHandler(directory / f"log-{number}")
    logging.getLogger("django_convstate").addHandler(log)
    store = ConversationStore()
    outages: list[dict[str, Any]] = []

    def recovered(sender: Any, signal: Any, **stats: Any) -> None:
        outages.append(stats)

    signals.backend_recovered.connect(recovered)
    failed: list[BaseException] = []

    def run(writer: Writer) -> None:
        try:
            writer.run()
        except BaseException as error:
            logging.getLogger("django_convstate").exception("A writer has failed.")
            failed.append(error)

    threads = [
        threading.Thread(
            target=run,
            args=(Writer(store, directory, THREADS * number + n, ids, writes, seed),),
        )
        for n in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (directory / f"done-{number}").touch()
    while not (directory / "stop").exists():
        time.sleep(0.05)
    give_up = time.monotonic() + PATIENCE
    while store.health().using_fallback and time.monotonic() < give_up:
        time.sleep(0.05)
    pending = store.health().pending_replay
    store.close()
    totals = {
        name: sum(each[name] for each in outages) for name in ("replayed", "conflicts", "lost")
    }
    report = {"outages": len(outages), "pending": pending, "failed": len(failed), **totals}
    (directory / f"report-{number}").write_text(json.dumps(report))


def main(cache: str, directory: str, processes: str, writes: str, seed: str) -> int:
    settings.configure(
        SECRET_KEY="storm",
        CACHES={"default": json.loads(cache)},
        CONVERSATION_STATE_BACKEND="redis",
    )
    ids = (Path(directory) / "ids").read_text().split()
    each = -(-int(writes) // (int(processes) * THREADS))
    children = []
    for number in range(int(processes)):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work(Path(directory), number, ids, each, seed)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
