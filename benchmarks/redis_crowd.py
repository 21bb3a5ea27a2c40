"""Many asyncio turns at a time, each on its own conversation, beside Django's session."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks import rivals
from benchmarks.measure import Spread, pair_by_pair
from benchmarks.report import Report
from benchmarks.turns import aturn, stored
from django_convstate import ConversationStore

TASKS, TURNS, ROUNDS = 50, 20, 7
SESSION = "Django session (async)"
AsyncTurn = Callable[[], Awaitable[object]]


async def rate(turn_of: Callable[[], Awaitable[AsyncTurn]]) -> float:
    """Return turns per second."""
    turns = [await turn_of() for _ in range(TASKS)]

    async def talk(turn: AsyncTurn) -> None:
        for _ in range(TURNS):
            await turn()

    started = time.perf_counter()
    await asyncio.gather(*map(talk, turns))
    return TASKS * TURNS / (time.perf_counter() - started)


async def measure(report: Report, url: str) -> None:
    store, begin = ConversationStore("redis", window=20), rivals.django_session_async(url)

    async def own() -> AsyncTurn:
        id = stored(store, 20).id
        return lambda: aturn(store, id)

    async def session() -> AsyncTurn:
        return await begin(20)

    contestants = {"ours": own, SESSION: session}
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in report.track(range(report.rounds(ROUNDS)), "At once"):
        for name, turn_of in contestants.items():
            rates[name].append(await rate(turn_of))
    found = {name: Spread.of(each) for name, each in rates.items()}
    rows = [
        [name, str(each), f"{pair_by_pair(rates[name], rates[SESSION], calls=1).median:.1f}"]
        for name, each in found.items()
    ]
    title = f"asyncio, {TASKS} at a time, 20 messages stored"
    report.table("crowd", title, ("", "turns a second", "ratio"), rows)
    await store.aclose()


def run(report: Report, url: str) -> None:
    asyncio.run(measure(report, url))
