"""Recorded dialogues, in the format that `replay_dialogues` reads."""

import json
from pathlib import Path
from typing import Any


def recorded_turn(speaker: str, text: str, **states: Any) -> dict[str, Any]:
    frames: list[dict[str, Any]] = [{"service": name, "state": s} for name, s in states.items()]
    return {"speaker": speaker, "utterance": text, "frames": frames or [{"service": "Hotels_1"}]}


def dialogue(id: str) -> dict[str, Any]:
    where = {"active_intent": "Find", "slot_values": {"city": ["Paris", "paris"]}}
    when = {"active_intent": "Book", "slot_values": {"city": ["Paris"], "nights": ["3"]}}
    return {
        "dialogue_id": id,
        "services": ["Hotels_1", "Flights_1"],
        "turns": [
            recorded_turn("USER", f"A hotel in Paris, {id}.", Hotels_1=where),
            recorded_turn("SYSTEM", "Für wie viele Nächte? 🛏"),
            recorded_turn(
                "USER", "Three. And a flight.", Hotels_1=when, Flights_1={"slot_values": {}}
            ),
            recorded_turn("SYSTEM", "Done."),
        ],
    }


def write_dialogues(path: Path, count: int = 40) -> None:
    """Write a file of dialogues of four turns, "1_00000" and so on."""
    dialogues = [dialogue(f"1_{number:05}") for number in range(count)]
    path.write_text(json.dumps(dialogues), encoding="utf-8")
