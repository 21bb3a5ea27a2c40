"""How everything here is timed: contestants alternate in one run, and the quartiles of each."""

import gc
import statistics
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

# Prepares one batch and returns what is to be timed, once for each call.
Prepare = Callable[[], Callable[[], object]]

# What a batch consists of. A busy server has its code in the processor's caches, from where other
# contestants have driven it out: so the first calls are not timed.
WARM, CALLS = 10, 5


class Spread(NamedTuple):
    """The quartiles of what was measured."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    def __str__(self) -> str:
        digits = 0 if self.median >= 100 else 1
        low, median, high = (f"{each:,.{digits}f}" for each in self)
        return f"{median} [{low}, {high}]"


def pair_by_pair(times: Sequence[float], others: Sequence[float], calls: int = CALLS) -> Spread:
    """Return the ratio of two contestants, of which each has so many times from each round: the
    median of a batch beside the median of the batch of the same round. The speed of a machine
    changes: in one round it is the same for both, in all rounds together it need not be."""
    pairs = zip(_rounds(times, calls), _rounds(others, calls), strict=False)
    return Spread.of([each / other for each, other in pairs])


def difference(times: Sequence[float], others: Sequence[float]) -> Spread:
    """Return by how much more one takes than the other, pair by pair as above."""
    pairs = zip(_rounds(times, CALLS), _rounds(others, CALLS), strict=False)
    return Spread.of([each - other for each, other in pairs])


def _rounds(times: Sequence[float], calls: int) -> list[float]:
    starts = range(0, len(times), calls)
    return [statistics.median(times[start : start + calls]) for start in starts]


def microseconds(batch: Iterable[Callable[[], object]]) -> list[float]:
    """Return how long each of the last CALLS of a batch took. What the batch does between its calls
    is not timed."""
    times = []
    for call in batch:
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1e6)
    return times[-CALLS:]


async def amicroseconds(batch: AsyncIterable[Callable[[], Awaitable[object]]]) -> list[float]:
    """See `microseconds`."""
    times = []
    async for call in batch:
        started = time.perf_counter()
        await call()
        times.append((time.perf_counter() - started) * 1e6)
    return times[-CALLS:]


def in_turn(contestants: Mapping[str, Prepare], batches: int, calls: int) -> dict[str, list[float]]:
    """Return how long one call took in each batch, in microseconds, by contestant.

    The contestants alternate, batch by batch, so that whatever else the machine does slows them
    all down. The garbage collector waits until a batch is done, as in `timeit`.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(batches):
        for name, prepare in contestants.items():
            times[name].append(_time_batch(prepare, calls))
    return times


def _time_batch(prepare: Prepare, calls: int) -> float:
    gc.collect()
    gc.disable()
    call = prepare()
    call()  # a busy server is warm
    call()
    started = time.perf_counter()
    for _ in range(calls):
        call()
    taken = time.perf_counter() - started
    gc.enable()
    return taken / calls * 1e6
