"""The signals of outages: sent in a thread, because their receivers may take any time."""

import threading
from collections import deque
from typing import Final

from django.dispatch import Signal

MAX_WAITING: Final = 100  # beyond that, while a receiver does not return, the oldest are not sent


class Announcements:
    """Sends signals one after the other, without waiting for their receivers. Thread-safe."""

    def __init__(self, sender: object) -> None:
        """Start no thread."""
        self._sender = sender
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Signal, dict[str, object]]] = deque(maxlen=MAX_WAITING)
        self._thread: threading.Thread | None = None

    def add(self, signal: Signal, **arguments: object) -> None:
        """Have a signal sent. `start` has to follow."""
        self._waiting.append((signal, arguments))

    def start(self) -> bool:
        """Start the thread if there is something to send. False: that has to be tried again,
        because there is no thread to be had."""
        with self._lock:  # under which the thread decides whether to exit
            is_running = self._thread is not None and self._thread.is_alive()
            if is_running or not self._waiting:
                return True
            self._thread = threading.Thread(target=self._run, name="convstate-signal", daemon=True)
            try:
                self._thread.start()
            except (RuntimeError, MemoryError):  # "can't start new thread"
                self._thread = None
                return False
            return True

    def join(self, timeout: float) -> None:
        """Wait until all are sent, for so many seconds at most."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                signal, arguments = self._waiting.popleft()
            signal.send_robust(self._sender, **arguments)
