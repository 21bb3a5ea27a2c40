"""Turns on the database of bench_db.py, until the input ends. Then the time that each took, in
seconds, as JSON.

    python -m benchmarks.live_turns RATE

Without a rate, in turns a second, they come one after the other, with a short pause. It is a
process of its own, as web processes are beside a purge.
"""

import json
import os
import sys
import threading
import time

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings_db"

import django

django.setup()

from benchmarks import chats  # noqa: E402
from django_convstate import ConversationStore  # noqa: E402

PAUSE = 0.005  # seconds between turns, without a rate


def main(rate: float | None = None) -> None:
    over = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    store = ConversationStore("database", ttl=24 * 3600, window=20)
    ids = []
    for _ in range(20):
        conversation = store.create()
        conversation.messages.extend(chats.messages(20))
        conversation.save()
        ids.append(conversation.id)
    print(flush=True)  # noqa: T201 - it begins
    times, number, began = [], 0, time.perf_counter()
    while not over.wait(pause(began + number / rate if rate else None)):
        number += 1
        said, answer = chats.text(), chats.text()
        started = time.perf_counter()
        conversation = store.get(ids[number % len(ids)])
        conversation.messages.window(20)
        conversation.messages.append("user", said)
        conversation.messages.append("assistant", answer)
        conversation.save()
        times.append(time.perf_counter() - started)
    json.dump(times, sys.stdout)


def pause(due: float | None) -> float:
    """Return how many seconds are left until a turn."""
    return PAUSE if due is None else max(0.0, due - time.perf_counter())


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
