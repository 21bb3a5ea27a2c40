"""The thread that an outage has: it tells, looks whether the primary is back, has the journal
brought home, tells again, and ends. No request ever probes, and none has to come for it to happen.
"""

import logging
import random
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from django.dispatch import Signal

from ... import signals
from ...exceptions import BackendUnavailable, ConversationError
from ...ids import new_id
from ..base import ConversationStateBackend
from ..records import Change, Health
from .breaker import Breaker
from .offline import Shelter
from .replay import Tally, bring_home

logger = logging.getLogger("django_convstate")

SPREAD: Final = 0.5  # seconds at most before the first comes home: many processes begin at once
PACE: Final = 0.002  # seconds at most between two conversations
FLUSH_SECONDS: Final = 5.0  # for what is still to be brought home when the backend is closed
PROBE_TTL: Final = 1.0
LAST_WORD: Final = 1.0  # seconds for receivers of a signal when the backend is closed

T = TypeVar("T")


@dataclass(slots=True)
class Part:
    """A part of the primary that may fail by itself: a node of a cluster, or the whole.

    `readable`: while nothing can be written, reading works, or is worth a try.
    """

    breaker: Breaker = field(default_factory=Breaker)
    readable: bool = True


class Recovery:
    """Runs while there is something to recover from."""

    def __init__(
        self, primary: ConversationStateBackend, shelter: Shelter, parts: dict[str, Part]
    ) -> None:
        self._primary = primary
        self._shelter = shelter
        self._parts = parts
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._tally = Tally()
        self._since: float | None = None  # seconds since the epoch; None: nobody was told
        self._telling: threading.Thread | None = None

    def wake(self) -> None:
        """See to it that the thread runs."""
        with self._lock:  # under which the thread decides whether to end
            if self._thread is None:
                self._stopping.clear()
                self._thread = threading.Thread(
                    target=self._run, name="convstate-recovery", daemon=True
                )
                self._thread.start()

    def needed_after(self, answer: T) -> T:
        """Run, because something has been written into the journal, and pass its answer on."""
        self.wake()
        return answer

    def stop(self, *, for_good: bool = False) -> None:
        """End the thread, and try once more to bring home what is in the journal.

        Args:
            for_good: the process ends. Tell how much is lost with it.
        """
        thread = self._thread
        if thread is threading.current_thread():
            return
        if thread is not None:
            self._stopping.set()
            thread.join()
            self._thread = None
        if self._shelter.journal.pending:
            for name, part in self._open():
                self._probe(name, part)
            self._replay(until=time.monotonic() + FLUSH_SECONDS)
        if self._is_over:
            self._tell_recovered()
        if self._telling is not None:
            self._telling.join(LAST_WORD)
        if for_good and self._shelter.journal.pending:
            logger.error(
                "The %s backend is still away: %d changes of %d conversations are lost with this "
                "process.",
                self._primary.name,
                self._shelter.journal.pending,
                len(self._shelter.journal.ids()),
            )

    def health_now(self) -> Health | None:
        """Return how things are, if that is known without asking the primary."""
        if not self._open():
            return None
        return self.health_after(Health(self._primary.name, connected=False, detail=self._reason))

    def health_after(self, health: Health) -> Health:
        pending = self._shelter.journal.pending
        return replace(
            health,
            using_fallback=bool(pending or self._open() or not health.connected),
            pending_replay=pending,
            is_full=self._shelter.journal.is_full,
            since=self._since,
        )

    @property
    def _reason(self) -> str:
        return next((part.breaker.reason for _, part in self._open()), "")

    def _open(self) -> list[tuple[str, Part]]:
        return [(name, part) for name, part in list(self._parts.items()) if part.breaker.is_open]

    @property
    def _is_over(self) -> bool:
        return not (self._shelter.journal.pending or self._open())

    def _run(self) -> None:
        while not self._stopping.is_set():
            while not (self._is_over or self._stopping.is_set()):
                self._tell_degraded()
                self._wait()
                now = time.monotonic()
                for name, part in self._open():
                    if part.breaker.next_probe <= now:
                        self._probe(name, part)
                self._replay()
            if self._is_over:
                self._tell_recovered()
            with self._lock:
                if self._is_over:
                    self._thread = None
                    return

    def _wait(self) -> None:
        waits = [part.breaker.next_probe - time.monotonic() for _, part in self._open()]
        # Without an open part there is only the journal, which can be brought home at once.
        pause = min(waits, default=random.uniform(0, SPREAD))  # noqa: S311 - hides nothing
        self._stopping.wait(max(0.0, pause))

    def _probe(self, name: str, part: Part) -> None:
        """Ask whether a part is back, by a conversation that nobody has and that goes at once."""
        id = self._id_in(name)
        if id is None:
            del self._parts[name]  # there is no such node any more
            return
        try:
            self._primary.peek(id, 1)
            part.readable = True
            self._primary.commit(id, Change(ttl=PROBE_TTL, set={"probe": b"true"}))
            self._primary.delete(id)
        except BackendUnavailable as error:
            part.breaker.probe_failed(str(error))
        except ConversationError:
            part.breaker.close()  # it did answer
        except Exception as error:
            logger.exception(
                "The %s backend cannot be asked whether it is back.", self._primary.name
            )
            part.breaker.probe_failed(type(error).__name__)
        else:
            part.breaker.close()

    def _id_in(self, name: str) -> str | None:
        candidates = (new_id() for _ in range(500))
        return next((id for id in candidates if self._primary.shard_of(id) == name), None)

    def _replay(self, until: float = float("inf")) -> None:
        stops_early = until == float("inf")
        for id in self._shelter.journal.ids():
            if time.monotonic() > until or (stops_early and self._stopping.is_set()):
                return
            part = self._parts.setdefault(self._primary.shard_of(id), Part())
            if part.breaker.is_open:
                continue
            try:
                bring_home(self._primary, self._shelter, id, self._tally)
            except BackendUnavailable as error:
                # One change that takes too long says little of the others.
                part.breaker.failed(part.breaker.era, str(error), transient=error.transient)
            except Exception:
                logger.exception("What is to be brought home cannot be. It is tried again.")
            time.sleep(random.uniform(0, PACE))  # noqa: S311 - hides nothing

    def _tell_degraded(self) -> None:
        if self._since is None and self._open():
            self._since = time.time()
            self._tally = Tally()
            logger.error("%s Conversations go on in the memory of this process.", self._reason)
            self._tell(signals.backend_degraded, reason=self._reason)

    def _tell_recovered(self) -> None:
        if self._since is None:
            return
        seconds, self._since, tally = time.time() - self._since, None, self._tally
        journal = self._shelter.journal
        refused, journal.refused = journal.refused, 0
        logger.warning(
            "The %s backend is back after %.1f s: %d changes brought home, %d of them in part, "
            "%d lost; %d were refused, because no more could be noted.",
            self._primary.name,
            seconds,
            tally.home,
            tally.conflicts,
            tally.lost,
            refused,
        )
        self._tell(
            signals.backend_recovered,
            seconds=seconds,
            home=tally.home,
            conflicts=tally.conflicts,
            lost=tally.lost,
        )

    def _tell(self, signal: Signal, **about: object) -> None:
        """Send a signal, after the last one, and without waiting for its receivers."""
        before = self._telling

        def send() -> None:
            if before is not None:
                before.join()
            signal.send_robust(self._primary, **about)

        self._telling = threading.Thread(target=send, name="convstate-signal", daemon=True)
        self._telling.start()
