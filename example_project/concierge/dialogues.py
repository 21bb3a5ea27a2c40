"""Recorded dialogues, in the format of the Schema-Guided Dialogue dataset.

A file is a list of {"dialogue_id": ..., "turns": [{"speaker": "USER", "utterance": ..., "frames":
[{"service": ..., "state": {...}}]}]}. A turn becomes a message, and the state of each of its frames
what the conversation has under the name of the service.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROLES: Final = {"USER": "user", "SYSTEM": "assistant"}


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
