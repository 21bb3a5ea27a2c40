"""How late this machine is: a measure of time is no better than that."""

import bisect
import json
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

# Notes for how many nanoseconds so far the threads of some processes were ready to run and had no
# processor (see schedstat in proc(5)). It does so in a process of its own, which waits for no lock
# of theirs; `time.monotonic()` is the same in all processes.
SCRIPT = """
import json, os, select, sys, time

known, waited, samples = {}, 0, []

def look():
    global waited
    for pid in sys.argv[1:]:
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for task in tasks:
            try:
                with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                    now = int(file.read().split()[1])
            except OSError:
                continue
            waited += now - known.get(task, 0 if samples else now)
            known[task] = now
    samples.append((time.monotonic(), waited / 1e9))

look()
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.005)[0]:
    look()
look()
json.dump(samples, sys.stdout)
"""


class Ruler:
    """Knows, after its `with` block, for how long this process had to wait for a processor in it.

    On a quiet machine that is next to nothing. Where others work, too, it may be most of the time.
    What this process does itself, or waits for, is not a part of it.

    Args:
        pids: other processes, such as a server, for which this one waits.
    """

    def __init__(self, *pids: int) -> None:
        self._pids = [os.getpid(), *pids]
        self._moments: list[float] = []
        self._waited: list[float] = []

    def __enter__(self) -> "Ruler":
        command = [sys.executable, "-I", "-S", "-c", SCRIPT, *map(str, self._pids)]
        self._process: subprocess.Popen[Any] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(self, *error: object) -> None:
        for moment, waited in json.loads(self._process.communicate()[0]):
            self._moments.append(moment)
            self._waited.append(waited)

    def fair(self, began: float, took: float) -> float:
        """Return how long it took from `began`, by `time.monotonic()`, less the time in which it
        waited for a processor."""
        before = max(0, bisect.bisect_right(self._moments, began) - 1)
        after = min(len(self._moments) - 1, bisect.bisect_left(self._moments, began + took))
        return max(0.0, took - (self._waited[after] - self._waited[before]))


class Stopwatch:
    """Measures how long a block takes, by a ruler that lies beside it."""

    seconds: float

    def __init__(self, *pids: int) -> None:
        self._ruler = Ruler(*pids)

    def __enter__(self) -> "Stopwatch":
        self._ruler.__enter__()
        self._began = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        took = time.monotonic() - self._began
        self._ruler.__exit__()
        self.seconds = self._ruler.fair(self._began, took)


def limit(seconds: float) -> float:
    """Return in how many seconds a machine as slow as this one is now has to do something that
    takes a quick one less than `seconds`; never more than eight times as many.

    An operation takes a dozen hand-overs between threads and processes, and if a connection is made
    with it several dozens, of which each may be slow.
    """
    return min(max(seconds, 60 * _slow_handover()), 8 * seconds)


def _slow_handover() -> float:
    """Return how long it takes until another thread answers, in the slowest tenth of the cases."""
    here, there = socket.socketpair()
    took = []
    with here, there:
        answering = threading.Thread(target=_answer, args=(there,))
        answering.start()
        for _ in range(100):
            began = time.monotonic()
            here.sendall(b"?")
            here.recv(1)
            took.append(time.monotonic() - began)
        here.shutdown(socket.SHUT_WR)
        answering.join()
    slowest = sorted(took)[-len(took) // 10 :]
    return sum(slowest) / len(slowest)


def _answer(asked: socket.socket) -> None:
    while question := asked.recv(1):
        asked.sendall(question)
