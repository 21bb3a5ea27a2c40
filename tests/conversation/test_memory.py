"""What a conversation takes in memory: each of thousands of open websockets has one."""

import gc
import tracemalloc

from django_convstate import conversations

COUNT = 200
LIMIT = 3 * 1024  # bytes: of objects, dictionaries and a lock; what is stored comes on top


def test_an_open_conversation_takes_little_memory() -> None:
    new = conversations.create()
    new["city"] = "Jaipur"
    new.messages.append("user", "Where is a good place for lunch?")
    new.save()
    opened = [conversations.get(new.id)]  # with what comes into being for a first one
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        opened += [conversations.get(new.id) for _ in range(COUNT)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / COUNT < LIMIT
