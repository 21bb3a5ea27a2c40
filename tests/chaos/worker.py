"""Worker processes, as a server of web pages has them: `python -m tests.chaos.worker URL DIRECTORY
COUNT JOURNAL_BYTES` forks so many; but one alone is the process itself.

Each writes into a conversation of its own until there is a file `stop` in the directory, and writes
down there, under its number, what it has said and what was acknowledged.
"""

import os
import sys
import time
from pathlib import Path

from django.conf import settings

TEXT = "text-5d02c7"
PAUSE = 0.3  # seconds between two turns
PATIENCE = 60  # seconds for what is to be brought home


def work(directory: Path, number: int, journal_bytes: int) -> None:
    from django_convstate import BackendUnavailable, ConversationStore
    from django_convstate.backends.failover import FailoverBackend
    from django_convstate.backends.locmem import LocMemBackend
    from django_convstate.backends.redis.backend import RedisBackend
    from django_convstate.ids import new_id

    fallback = LocMemBackend(max_conversations=10_000)
    backend = FailoverBackend(RedisBackend(), fallback, journal_bytes=journal_bytes)
    store, id, said = ConversationStore(backend), new_id(), 0
    with (directory / str(number)).open("w", buffering=1) as notes:
        while not (directory / "stop").exists():
            said += 1
            notes.write(f"said {id} {said}\n")
            try:
                conversation = store.open(id)
                conversation.messages.append("user", f"{TEXT}/{id}/{number}/{said}")
                conversation.incr("turns")
                conversation.save()
            except BackendUnavailable:
                notes.write(f"refused {id} {said}\n")
            else:
                kind = "degraded" if conversation.degraded else "stored"
                notes.write(f"{kind} {id} {said}\n")
            time.sleep(PAUSE)
        give_up = time.monotonic() + PATIENCE
        while backend.health().using_fallback and time.monotonic() < give_up:
            time.sleep(0.05)
        backend.close()


def main(url: str, directory: str, count: str, journal_bytes: str) -> int:
    entry = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url}
    settings.configure(CACHES={"default": entry})
    if count == "1":
        work(Path(directory), 0, int(journal_bytes))
        return 0
    import django_convstate.backends.failover
    import django_convstate.backends.redis.backend  # noqa: F401 - once, and not in each child

    children = []
    for number in range(int(count)):
        child = os.fork()
        if child == 0:
            work(Path(directory), number, int(journal_bytes))
            os._exit(0)
        children.append(child)
    return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
