"""Threads that cannot be started, as where a process has too many."""

import threading

import pytest


def refuse_threads(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return a set of names: no thread that has one of them can be started from now on."""
    names, start = set[str](), threading.Thread.start

    def start_if_possible(thread: threading.Thread) -> None:
        if thread.name in names:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_if_possible)
    return names
