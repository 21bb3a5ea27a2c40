"""What is said in chats that are measured: words, for a session is compressed, and one letter two
hundred times over would be nothing."""

import random
from typing import Final

SIZE: Final = 200  # bytes of text of a message
_random = random.Random(14)
_WORDS: Final = [
    "".join(_random.choices("abcdefghijklmnoprstuvwy", k=_random.randint(2, 9)))
    for _ in range(3000)
]


def text() -> str:
    """Return something to say."""
    return " ".join(_random.choices(_WORDS, k=SIZE // 2))[:SIZE]


def messages(count: int) -> list[dict[str, str]]:
    """Return messages as a session keeps them."""
    stamp = "2026-11-20T12:00:00.000+00:00"
    roles = ("user", "assistant")
    return [
        {"role": roles[number % 2], "content": text(), "timestamp": stamp}
        for number in range(count)
    ]
