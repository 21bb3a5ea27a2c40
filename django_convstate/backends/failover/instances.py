"""The failover backends of this process: what becomes of them at its end, and after a fork."""

import atexit
import weakref
from typing import Final, Protocol

from ..toolkit import forksafe


class Instance(Protocol):
    """What a `FailoverBackend` does then."""

    def finish(self) -> None:
        """Replay what is possible, because the process ends."""

    def begin_anew(self) -> None:
        """Begin anew in a forked process."""


instances: Final["weakref.WeakSet[Instance]"] = weakref.WeakSet()


def _replay_at_exit() -> None:
    for backend in list(instances):
        backend.finish()


def _begin_in_child() -> None:
    for backend in list(instances):
        backend.begin_anew()


atexit.register(_replay_at_exit)
forksafe.reset_in_child(_begin_in_child)
