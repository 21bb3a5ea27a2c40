"""What is told of an outage, by signals and to the log: in threads, because receivers and handlers
may take any time. Handlers may even never return, in a forked child: if a thread of its parent was
writing to their file at that moment, that stays locked."""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, ParamSpec

MAX_WAITING: Final = 100  # beyond that, while a call does not return, the oldest are dropped

P = ParamSpec("P")


class Announcements:
    """Makes calls one after the other, and waits for none of them. Thread-safe."""

    def __init__(self, name: str) -> None:
        """Start no thread. `name` is the name that it will have."""
        self._name = name
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], object]] = deque(maxlen=MAX_WAITING)
        self._thread: threading.Thread | None = None

    def add(self, call: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Have a call made, and tell what `start` does."""
        self._waiting.append(partial(call, *args, **kwargs))
        return self.start()

    def start(self) -> bool:
        """Start the thread if there is something to do. False: that has to be tried again, because
        there is no thread to be had."""
        with self._lock:  # under which the thread decides whether to exit
            is_running = self._thread is not None and self._thread.is_alive()
            if is_running or not self._waiting:
                return True
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                self._thread.start()
            except (RuntimeError, MemoryError):  # "can't start new thread"
                self._thread = None
                return False
            return True

    def join(self, timeout: float) -> None:
        """Wait until all calls are made, for so many seconds at most."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                call = self._waiting.popleft()
            with suppress(Exception):  # an error of a log handler, say
                call()
