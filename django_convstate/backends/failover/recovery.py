"""The thread that runs for as long as an outage: it signals the outage, probes the primary, has the
journal replayed, signals the end, and exits. Requests never probe, and recovery needs no traffic.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Final

from django.dispatch import Signal

from ... import ids, signals
from ...exceptions import BackendUnavailable, ConversationError
from ...tracebacks import without_locals
from ..base import ConversationStateBackend
from ..records import Change
from ..reports import Health
from .offline import OfflineStore
from .replay import Replayer, ReplayStats
from .route import Route, Shard

logger = logging.getLogger("django_convstate")

REPLAY_JITTER: Final = 0.5  # seconds at most before the first replay: many processes begin at once
REPLAY_PAUSE: Final = 0.002  # seconds at most between two conversations
CLOSE_TIMEOUT: Final = 5.0  # seconds for what is still to be replayed when the backend is closed
SIGNAL_TIMEOUT: Final = 1.0  # seconds for receivers of a signal when the backend is closed
PROBE_TTL: Final = 1.0  # seconds until the conversation of a probe is gone
PROBE_IDS: Final = 500  # random ids, of which one is on the shard that is to be probed


class Recovery:
    """Knows which shards of the primary are available, and runs its thread while there is something
    to recover from."""

    def __init__(self, primary: ConversationStateBackend, offline: OfflineStore) -> None:
        """Start no thread."""
        self._primary = primary
        self._offline = offline
        self._replayer = Replayer(primary, offline)
        self._shards: dict[str, Shard] = {}  # those that were used, by name
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._since: float | None = None  # seconds since the epoch; None: no outage was signalled
        self._signalling: threading.Thread | None = None

    def route(self, id: str, *, only_reads: bool = False, is_pending: bool = False) -> Route:
        """Return how an operation on a conversation reaches the primary now.

        Args:
            only_reads: the operation writes nothing.
            is_pending: what it is about is not in the primary, besides what the journal says.
        """
        name, journal = self._primary.shard_of(id), self._offline.journal
        shard = self._shards.get(name) or self._shards.setdefault(name, Shard())
        if journal.pending or shard.breaker.is_open:
            self.wake()  # the thread runs already, unless the backend was closed
        is_pending = is_pending or (journal.pending > 0 and id in journal)
        return Route(shard, self.wake, is_pending=is_pending, only_reads=only_reads)

    def wake(self) -> None:
        """Start the thread, unless it runs."""
        with self._lock:  # under which the thread decides whether to exit
            if self._thread is None:
                self._stopping.clear()
                self._thread = threading.Thread(
                    target=self._run, name="convstate-recovery", daemon=True
                )
                self._thread.start()

    def stop(self, *, for_good: bool = False) -> None:
        """End the thread, and try once more to replay the journal.

        Args:
            for_good: the process ends. Log how much is lost with it.
        """
        with self._lock:  # so that it is started, and can be joined
            thread = self._thread
        if thread is threading.current_thread():
            return
        if thread is not None:
            self._stopping.set()
            thread.join()
            self._thread = None
            self._stopping.clear()
        journal = self._offline.journal
        if journal.pending:
            for name, shard in self._down():
                self._probe(name, shard)
            self._replay(until=time.monotonic() + CLOSE_TIMEOUT)
        if self._is_over:
            self._announce_recovery()
        if self._signalling is not None:
            self._signalling.join(SIGNAL_TIMEOUT)
        if for_good and journal.pending:
            logger.error(
                "The %s backend is still unavailable: %d changes of %d conversations are lost with "
                "this process. Their users have to repeat them.",
                self._primary.name,
                journal.pending,
                len(journal.ids()),
            )

    def end_outage(self, restore: Callable[[], object]) -> None:
        """See `FailoverBackend.end_outage`."""
        self.stop()  # while the primary is unavailable, so that it is not probed
        self._announce_outage()  # one that was too short for the thread to notice
        restore()
        for shard in list(self._shards.values()):
            shard.breaker.close()
            shard.readable = True
        self.stop()

    def outage_health(self) -> Health | None:
        """Return the health in an outage, without asking the primary. None: there is none."""
        if not self._down():
            return None
        return Health(self._primary.name, connected=False, detail=self._reason)

    def completed(self, health: Health) -> Health:
        """Return the primary's health with what this process has yet to replay."""
        journal = self._offline.journal
        return replace(
            health,
            using_fallback=bool(journal.pending or self._down() or not health.connected),
            pending_replay=journal.pending,
            is_full=journal.is_full,
            since=self._since,
        )

    @property
    def _reason(self) -> str:
        return next((shard.breaker.reason for _, shard in self._down()), "")

    def _down(self) -> list[tuple[str, Shard]]:
        return [item for item in list(self._shards.items()) if item[1].breaker.is_open]

    @property
    def _is_over(self) -> bool:
        return not (self._offline.journal.pending or self._down())

    def _run(self) -> None:
        while not self._stopping.is_set():
            if not self._is_over:
                self._announce_outage()
                self._wait()
                now = time.monotonic()
                for name, shard in self._down():
                    if shard.breaker.next_probe <= now:
                        self._probe(name, shard)
                self._replay()
                continue
            self._announce_recovery()
            with self._lock:
                if self._is_over:
                    self._thread = None
                    return

    def _wait(self) -> None:
        waits = [shard.breaker.next_probe - time.monotonic() for _, shard in self._down()]
        # If no shard is down, there is only the journal, which can be replayed now.
        wait = min(waits, default=random.uniform(0, REPLAY_JITTER))  # noqa: S311 - hides nothing
        self._stopping.wait(max(0.0, wait))

    def _probe(self, name: str, shard: Shard) -> None:
        """Ask whether a shard is back, by a conversation of our own that expires at once."""
        id = self._id_on(name)
        if id is None:
            del self._shards[name]  # there is no such node any more
            return
        try:
            self._primary.peek(id, 1)
            shard.readable = True
            self._primary.commit(id, Change(ttl=PROBE_TTL, set={"probe": b"true"}))
        except BackendUnavailable as error:
            shard.breaker.probe_failed(str(error))
        except ConversationError:
            shard.breaker.close()  # it did answer
        except Exception as error:
            logger.error(
                "The %s backend could not be probed because of an unexpected error. It counts as "
                "unavailable, and is probed again.",
                self._primary.name,
                exc_info=without_locals(error),
            )
            shard.breaker.probe_failed(type(error).__name__)
        else:
            shard.breaker.close()

    def _id_on(self, name: str) -> str | None:
        candidates = (ids.new_id() for _ in range(PROBE_IDS))
        return next((id for id in candidates if self._primary.shard_of(id) == name), None)

    def _replay(self, until: float = float("inf")) -> None:
        for id in self._offline.journal.ids():
            if self._stopping.is_set() or time.monotonic() > until:
                return
            shard = self._shards.setdefault(self._primary.shard_of(id), Shard())
            if shard.breaker.is_open:
                continue
            try:
                self._replayer.replay(id)
            except BackendUnavailable as error:
                # One change that takes too long says little of the others.
                shard.breaker.failed(shard.breaker.era, str(error), transient=error.transient)
            except Exception as error:
                logger.error(
                    "Replay of conversation %s failed because of an unexpected error. Its changes "
                    "are kept, and replay is tried again.",
                    ids.hashed_id(id),
                    exc_info=without_locals(error),
                )
            time.sleep(random.uniform(0, REPLAY_PAUSE))  # noqa: S311 - hides nothing

    def _announce_outage(self) -> None:
        if self._since is None and self._down():
            self._since = time.time()
            self._replayer.stats = ReplayStats()
            logger.error(
                "The %s backend is unavailable: %s Conversations go on in the memory of this "
                "process, and it replays their changes when the backend is back. Do not kill it "
                "before, or they are lost.",
                self._primary.name,
                self._reason,
            )
            self._send_signal(signals.backend_degraded, reason=self._reason)

    def _announce_recovery(self) -> None:
        if self._since is None:
            return
        seconds, self._since, stats = time.time() - self._since, None, self._replayer.stats
        journal = self._offline.journal
        refused, journal.refused = journal.refused, 0
        logger.warning(
            "The %s backend is back after %.1f s: %d changes replayed (%d in part), %d lost. "
            "%d were refused, because the journal was full.",
            self._primary.name,
            seconds,
            stats.replayed,
            stats.conflicts,
            stats.lost,
            refused,
        )
        self._send_signal(signals.backend_recovered, seconds=seconds, **asdict(stats))

    def _send_signal(self, signal: Signal, **arguments: object) -> None:
        """Send a signal, after the last one, and without waiting for its receivers."""
        previous = self._signalling

        def send() -> None:
            if previous is not None:
                previous.join()
            signal.send_robust(self._primary, **arguments)

        thread = threading.Thread(target=send, name="convstate-signal", daemon=True)
        thread.start()
        self._signalling = thread  # now, and not before: another thread may join it at once
