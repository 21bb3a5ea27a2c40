"""An outage of hours, by a clock that goes faster."""

import time
import tracemalloc

import pytest

from django_convstate import BackendUnavailable, ConversationStore, clock
from django_convstate.backends.failover.backend import JOURNAL_BYTES, KNOWN_BYTES
from django_convstate.ids import new_id
from tests.chaos.world import World

HOURS, CONVERSATIONS = 2, 50_000
KNOWN = 2_000  # of them, from before the outage


def says(world: World, store: ConversationStore, id: str, number: int) -> bool:
    """Take a turn, and return whether it was accepted."""
    try:
        conversation = store.open(id)
        conversation.messages.append("user", world.model.text(id, 0, number))
        conversation.incr("turns")
        conversation.save()
    except BackendUnavailable:
        return False
    return True


@pytest.mark.chaos
def test_a_long_outage_keeps_to_its_bounds_of_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = world.backend()
    store = ConversationStore(backend)
    ids = [new_id() for _ in range(CONVERSATIONS)]
    accepted = bytearray(CONVERSATIONS)  # so that it takes no memory in what follows
    tracemalloc.start(1)
    nothing, _ = tracemalloc.get_traced_memory()
    assert all(says(world, store, id, 1) for id in ids[:KNOWN])
    world.server.kill()
    now, most = [time.time()], 0
    monkeypatch.setattr(clock, "time", lambda: now[0])
    for number, id in enumerate(ids):
        now[0] += HOURS * 3600 / CONVERSATIONS
        accepted[number] = says(world, store, id, 2)
        if number % 1000 == 0:
            most = max(most, tracemalloc.get_traced_memory()[0] - nothing)
    tracemalloc.stop()
    cap, refused = JOURNAL_BYTES + KNOWN_BYTES, CONVERSATIONS - sum(accepted)
    world.note(
        f"{sum(accepted)} turns accepted and {refused} refused; at most {most / 2**20:.0f} MiB "
        f"of memory, and the cap is {cap / 2**20:.0f} MiB"
    )
    assert most <= 1.2 * cap
    assert backend.health().pending_replay == sum(accepted)
    assert backend._offline.journal.refused == refused > 0
    for number, id in enumerate(ids):
        said = {(0, 1)} if number < KNOWN else set()
        world.model.acknowledged[id] = said | ({(0, 2)} if accepted[number] else set())
        world.model.said[id] = said | {(0, 2)}
    monkeypatch.undo()
    back = world.restart()
    world.note(f"all of them home {world.settle() - back:.1f} s after the first PONG")
    world.check()
