"""How everything here is timed: contestants in turn, in one run, and the median of each."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping

# Prepares one batch and returns what is to be timed, once for each call.
Prepare = Callable[[], Callable[[], object]]


def medians(contestants: Mapping[str, Prepare], batches: int, calls: int) -> dict[str, float]:
    """Return the median time of one call in microseconds, by contestant.

    The contestants take turns, batch by batch, so that whatever else the machine does meets them
    all. The garbage collector waits until a batch is done, as in `timeit`.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(batches):
        for name, prepare in contestants.items():
            times[name].append(_time_batch(prepare, calls))
    return {name: statistics.median(taken) for name, taken in times.items()}


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
