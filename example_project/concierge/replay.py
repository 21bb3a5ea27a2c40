"""Driving recorded dialogues through a store, as requests would, and looking at what it kept.

A file is in the format of the Schema-Guided Dialogue dataset, a list of {"dialogue_id": ...,
"turns": [{"speaker": "USER", "utterance": ..., "frames": [{"service": ..., "state": {...}}]}]}. A
turn becomes a message, and the state of each of its frames what the conversation has under the name
of the service.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from operator import eq
from pathlib import Path
from threading import Event
from typing import Any, Final

from django.db import connections

from django_convstate import (
    BackendUnavailable,
    Conversation,
    ConversationError,
    ConversationInterrupted,
    ConversationNotFound,
    ConversationStore,
)

ROLES: Final = {"USER": "user", "SYSTEM": "assistant"}
_GONE: Final = (
    "its conversation is gone, evicted or expired. Make room for all of them at a time "
    "(MAX_CONVERSATIONS of locmem, MAX_ENTRIES of a cache), or raise TTL."
)


class DialogueFileError(ValueError):
    """A file that cannot be read as dialogues. The message says which, and where in it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A message, and the state values that come with it."""

    role: str
    text: str
    states: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One dialogue; `name` says where it is from, for people."""

    name: str
    turns: tuple[Turn, ...]

    @property
    def final_state(self) -> dict[str, Any]:
        """What the state is after the last turn."""
        return {key: value for turn in self.turns for key, value in turn.states.items()}


class ReplayError(Exception):
    """The store does not have what it was given. The message says which dialogue, and where."""


class Replay:
    """Dialogues, each in a conversation of its own, several of them at a time."""

    def __init__(
        self,
        store: ConversationStore,
        dialogues: Sequence[Dialogue],
        *,
        workers: int,
        progress: Callable[[], object],
    ) -> None:
        """Prepare, but do nothing yet.

        Args:
            store: where the conversations are to be kept.
            dialogues: what is said in them.
            workers: how many threads work at a time.
            progress: called after each turn, written or compared, by the thread that did it.
        """
        self._store = store
        self._dialogues = dialogues
        self._workers = workers
        self._progress = progress
        self._ids: dict[int, str] = {}  # place of a dialogue in the list to its conversation
        self._stopping = Event()

    def write(self) -> None:
        """Say every turn: one load and one save for each, as there are in a request.

        Raises:
            ReplayError: a conversation has gone in the meantime.
        """
        self._in_threads(self._write_one)

    def compare(self) -> None:
        """Load every conversation afresh and compare it with its dialogue.

        Raises:
            ReplayError: there is a difference; this is the first that was found.
        """
        self._in_threads(self._compare_one)

    def clean_up(self) -> None:
        """Delete the conversations that were made."""
        with suppress(BackendUnavailable):  # they will expire
            for id in self._ids.values():
                self._store.delete(id)

    def _in_threads(self, work: Callable[[int], None]) -> None:
        def work_through(first: int) -> None:
            try:
                for index in range(first, len(self._dialogues), self._workers):
                    work(index)
            finally:
                connections.close_all()  # of this thread, to databases

        pool = ThreadPoolExecutor(self._workers)
        try:
            for done in as_completed([pool.submit(work_through, n) for n in range(self._workers)]):
                done.result()
        except BaseException:  # Ctrl-C too
            self._stopping.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _write_one(self, index: int) -> None:
        dialogue = self._dialogues[index]
        conversation = self._store.create()
        self._ids[index] = conversation.id
        for number, turn in enumerate(dialogue.turns, start=1):
            if self._stopping.is_set():
                return
            with _naming(f"{dialogue.name}, turn {number}"):
                if number > 1:
                    conversation = self._store.get(conversation.id)
                conversation.messages.append(turn.role, turn.text)
                conversation.update(turn.states)
                conversation.save()
            self._progress()

    def _compare_one(self, index: int) -> None:
        dialogue = self._dialogues[index]
        if self._stopping.is_set() or not dialogue.turns:  # nothing said is nothing stored
            return
        with _naming(dialogue.name):
            conversation = self._store.get(self._ids[index])
        for place, expected, found in _pairs(dialogue, conversation):
            if expected != found:
                raise ReplayError(f"{dialogue.name}, {place}: {_difference(expected, found)}")
        for _ in dialogue.turns:
            self._progress()


@contextmanager
def _naming(place: str) -> Iterator[None]:
    try:
        yield
    except (ConversationNotFound, ConversationInterrupted) as error:
        raise ReplayError(f"{place}: {_GONE}") from error
    except ConversationError as error:
        raise ReplayError(f"{place}: {error}") from error


def _pairs(dialogue: Dialogue, conversation: Conversation) -> Iterator[tuple[str, Any, Any]]:
    """Yield all that is to be equal: what it is, what it should be and what it is found to be."""
    messages = conversation.messages.all()
    yield "number of messages", len(dialogue.turns), len(messages)
    for number, (turn, message) in enumerate(zip(dialogue.turns, messages, strict=True), start=1):
        yield f"turn {number}, role", turn.role, message.get("role")
        yield f"turn {number}, content", turn.text, message.get("content")
    yield "keys of the state", sorted(dialogue.final_state), sorted(conversation)
    for key, value in dialogue.final_state.items():
        yield f"state[{key!r}]", value, conversation[key]


def _difference(expected: object, found: object) -> str:
    """Return both, shortened to where they begin to differ."""
    one, other = repr(expected), repr(found)
    same = sum(1 for _ in takewhile(bool, map(eq, one, other)))
    start = max(0, same - 20)
    return f"expected {_cut(one, start)}, found {_cut(other, start)}"


def _cut(text: str, start: int, length: int = 80) -> str:
    shown = text[start : start + length]
    return f"{'…' if start else ''}{shown}{'…' if start + length < len(text) else ''}"


def read_dialogues(path: Path) -> list[Dialogue]:
    """Return the dialogues in a file.

    Raises:
        DialogueFileError: it is missing, not JSON, or of another shape.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DialogueFileError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DialogueFileError(f"{path} is not JSON: {error}.") from error
    if not isinstance(data, list):
        raise DialogueFileError(f"{path} is not a list of dialogues.")
    return [_dialogue(item, f"{path}[{index}]", path.name) for index, item in enumerate(data)]


def _dialogue(data: Any, place: str, file: str) -> Dialogue:
    id = _field(data, "dialogue_id", str, place)
    turns = _field(data, "turns", list, place)
    return Dialogue(
        name=f"{file}, dialogue {id}",
        turns=tuple(_turn(turn, f"{place}.turns[{i}]") for i, turn in enumerate(turns)),
    )


def _turn(data: Any, place: str) -> Turn:
    speaker = _field(data, "speaker", str, place)
    if speaker not in ROLES:
        raise DialogueFileError(f"{place}.speaker is {speaker!r:.40}, not {' or '.join(ROLES)}.")
    frames = _field(data, "frames", list, place)
    states = {}
    for index, frame in enumerate(frames):
        service = _field(frame, "service", str, f"{place}.frames[{index}]")
        if "state" in frame:
            states[service] = frame["state"]
    return Turn(ROLES[speaker], _field(data, "utterance", str, place), states)


def _field(data: Any, name: str, kind: type, place: str) -> Any:
    """Return `data[name]`, if `data` is an object and that is of the right kind."""
    if not isinstance(data, dict):
        raise DialogueFileError(f"{place} is not an object.")
    if not isinstance(data.get(name), kind):
        raise DialogueFileError(f"{place}.{name} is missing or not a {kind.__name__}.")
    return data[name]
