"""One of the client processes of bench_scale.py: reads what to do, a line of JSON each, and answers
with a line of JSON."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings_redis"

import django

django.setup()

from benchmarks.turns import stored, turn  # noqa: E402
from django_convstate import ConversationStore  # noqa: E402

CONVERSATIONS = 200  # so that none becomes long
store = ConversationStore("redis", window=20)
ids: list[str] = []


def talk(seconds: float) -> list[int]:
    """Take turns for so long, one after the other; return the microseconds of each."""
    if not ids:
        ids.extend(stored(store, 20).id for _ in range(CONVERSATIONS))
    times: list[int] = []
    until = time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        turn(store, ids[len(times) % CONVERSATIONS])
        times.append(round((time.perf_counter() - started) * 1e6))
    return times


def fill(population: str, count: int, text_bytes: int) -> int:
    """Take one turn on each conversation of a population, which begins with it."""
    text = "x" * text_bytes
    for number in range(count):
        conversation = store.open(store.key(population, str(number)))
        conversation.messages.window(20)
        conversation.incr("turns")
        conversation.messages.append("user", text)
        conversation.messages.append("assistant", text)
        conversation.save()
    return count


def main() -> None:
    acts: dict[str, Callable[..., Any]] = {"talk": talk, "fill": fill}
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(acts[name](*arguments)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
