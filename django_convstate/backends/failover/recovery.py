"""The thread that runs for as long as an outage: it signals the outage, probes the primary, has the
journal replayed, signals the end, and exits. Requests never probe, and recovery needs no traffic.

No error ends it; and if the thread cannot be started, or has died, the next operation that notices
starts it again.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Final

from ... import ids, signals
from ...exceptions import BackendUnavailable, ConversationBusy, ConversationError
from ...tracebacks import without_locals
from ..base import ConversationStateBackend
from ..records import Change
from ..reports import Health
from .announcements import Announcements
from .journal import PendingWrites
from .offline import OfflineStore
from .replay import Replayer, ReplayStats
from .route import Route, Shard

logger = logging.getLogger("django_convstate")

REPLAY_JITTER: Final = 0.5  # seconds at most before the first replay: many processes begin at once
REPLAY_PAUSE: Final = 0.002  # seconds at most between two conversations
SLIDES_AT_ONCE: Final = 200  # conversations whose expiry is slid before changes are looked for
SHORTEST_RETRY_WAIT: Final = 1.0  # seconds until a conversation that could not be replayed is again
LONGEST_RETRY_WAIT: Final = 30.0
ERROR_PAUSE: Final = 1.0  # seconds after an error of which we know nothing
CLOSE_TIMEOUT: Final = 5.0  # seconds for what is still to be replayed when the backend is closed
SIGNAL_TIMEOUT: Final = 1.0  # seconds for receivers and log handlers when the backend is closed
PROBE_TTL: Final = 1.0  # seconds until the conversation of a probe is gone
PROBE_IDS: Final = 500  # random ids, of which one is on the shard that is to be probed


class Recovery:
    """Knows which shards of the primary are available, and runs its thread while there is something
    to recover from."""

    def __init__(self, primary: ConversationStateBackend, offline: OfflineStore) -> None:
        """Start no thread."""
        self._primary = primary
        self._offline = offline
        self._replayer = Replayer(primary, offline, self._log)
        self._shards: dict[str, Shard] = {}  # those that were used, by name
        self._whole: Shard | None = None  # the only one, if the primary has no shards
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._since: float | None = None  # seconds since the epoch; None: no outage was signalled
        self._began = 0.0  # the same, by the monotonic clock
        self._announcements = Announcements("convstate-signal")
        self._logged = Announcements("convstate-log")

    def route(self, id: str, *, only_reads: bool = False, is_pending: bool = False) -> Route:
        """Return how an operation on a conversation reaches the primary now.

        Args:
            only_reads: the operation writes nothing.
            is_pending: what it is about is not in the primary, besides what the journal says.
        """
        # Every load and save comes here, so there are no calls while all is well.
        shard = self._whole or self._shard_of(id)[1]
        breaker, journal = shard.breaker, self._offline.journal
        if journal.pending or breaker.is_open:
            self.wake()  # the thread runs already, unless the backend was closed, or it has died
            is_pending = is_pending or id in journal
        route = Route()
        route.shard, route.id, route.on_trouble = shard, id, self.wake
        route.era = breaker.era
        route.writable = not (is_pending or breaker.is_open)
        route.may_ask = route.writable or (only_reads and shard.readable and not is_pending)
        route.answered = False
        return route

    def _shard_of(self, id: str) -> tuple[str, Shard]:
        """Return the shard that holds a conversation, with its name."""
        found = self._primary.shard_of(id)
        name = found or ""
        shard = self._shards.get(name) or self._shards.setdefault(name, Shard())
        if found is None:
            self._whole = shard
        return name, shard

    def wake(self) -> None:
        """Start the thread, unless it runs. If there is no thread to be had, the next call tries
        again: no operation fails because of that."""
        with self._lock:  # under which the thread decides whether to exit
            if self._thread is not None and self._thread.is_alive():
                return
            self._stopping.clear()
            self._thread = threading.Thread(
                target=self._run, name="convstate-recovery", daemon=True
            )
            try:
                self._thread.start()
            except (RuntimeError, MemoryError):  # "can't start new thread"
                self._thread = None

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
        if journal.pending or self._offline.used:
            for name, shard in self._down():
                self._probe(name, shard)
            self._replay(until=time.monotonic() + CLOSE_TIMEOUT, is_last=True)
        if self._is_over:
            self._announce_recovery()
        for announcements in (self._announcements, self._logged):
            announcements.start()
            announcements.join(SIGNAL_TIMEOUT)
        if for_good and journal.pending:
            logger.error(
                "The %s backend is still unavailable: %d changes of %d conversations are lost with "
                "this process. Their users have to repeat them.",
                self._primary.name,
                journal.pending,
                len(journal.ids()),
            )

    def end_outage(self, restore: Callable[[], object]) -> None:
        """Call `restore`, take the primary for available then, and replay at once. For tests that
        have made the outage: no probe is waited for, and none leaves its conversation."""
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
        self.wake()
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

    def _suspects(self) -> list[tuple[str, Shard]]:
        return [item for item in list(self._shards.items()) if item[1].breaker.is_suspect]

    @property
    def _is_over(self) -> bool:
        is_done = not (self._offline.journal.pending or self._offline.used)
        return is_done and not (self._down() or self._suspects())

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._step():
                    return
            except Exception as error:
                self._log(
                    logging.ERROR,
                    "Recovery of the %s backend met an unexpected error. It goes on.",
                    self._primary.name,
                    exc_info=without_locals(error),
                )
                self._stopping.wait(ERROR_PAUSE)

    def _step(self) -> bool:
        """Do what can be done by now, and tell whether there is nothing left to do."""
        self._start_announcements()
        if not self._is_over:
            self._announce_outage()
            self._wait()
            now = time.monotonic()
            for name, shard in self._down():
                if shard.breaker.next_probe <= now:
                    self._probe(name, shard)
            for name, shard in self._suspects():
                self._probe(name, shard)
            self._replay()
            return False
        self._announce_recovery()
        if not self._start_announcements():
            self._stopping.wait(ERROR_PAUSE)
            return False
        with self._lock:
            if not self._is_over:
                return False
            self._thread = None
            return True

    def _start_announcements(self) -> bool:
        is_signalled, is_logged = self._announcements.start(), self._logged.start()
        return is_signalled and is_logged

    def _log(
        self, level: int, message: str, *args: object, exc_info: Exception | None = None
    ) -> None:
        self._logged.add(logger.log, level, message, *args, exc_info=exc_info)

    def _wait(self) -> None:
        if self._suspects():
            return
        down = self._down()
        waits = [shard.breaker.next_probe - time.monotonic() for _, shard in down]
        if len(down) < len(self._shards):
            # Of a shard that is not down there may be something to replay, now or in a moment.
            waits.append(random.uniform(0, REPLAY_JITTER))  # noqa: S311 - hides nothing
        self._stopping.wait(max(0.0, min(waits, default=0.0)))

    def _probe(self, name: str, shard: Shard) -> None:
        """Ask whether a shard is back, or there at all."""
        error = self._ask(name, shard)
        if error is None:
            shard.breaker.close()
        else:
            shard.breaker.probe_failed(str(error))

    def _ask(self, name: str, shard: Shard) -> BackendUnavailable | None:
        """Ask a shard for a conversation of our own that expires at once, and return the error."""
        try:
            id = self._id_on(name)
            if id is None:
                self._shards.pop(name, None)  # there is no such node any more
                return None
            self._primary.peek(id, 1)
            shard.readable = True
            self._primary.commit(id, Change(ttl=PROBE_TTL, set={"probe": b"true"}))
        except BackendUnavailable as error:
            return error
        except ConversationError:
            return None  # it did answer
        except Exception as error:
            self._log(
                logging.ERROR,
                "The %s backend could not be probed because of an unexpected error. It counts "
                "as unavailable, and is probed again.",
                self._primary.name,
                exc_info=without_locals(error),
            )
            return BackendUnavailable(type(error).__name__)
        return None

    def _id_on(self, name: str) -> str | None:
        candidates = (ids.new_id() for _ in range(PROBE_IDS))
        return next((id for id in candidates if (self._primary.shard_of(id) or "") == name), None)

    def _replay(self, until: float = float("inf"), *, is_last: bool = False) -> None:
        """Replay what can be replayed; if it `is_last`, with those conversations that were to wait
        for another try."""
        for id in self._offline.journal.ids():
            now = time.monotonic()
            if self._stopping.is_set() or now > until:
                return
            pending = self._offline.journal.get(id)
            if pending is not None and (is_last or pending.retry_at <= now):
                self._replay_one(id, pending)
        # Few at a time: a change that is made meanwhile waits for none of the others.
        for id in list(self._offline.used)[: None if is_last else SLIDES_AT_ONCE]:
            if self._stopping.is_set() or time.monotonic() > until:
                return
            self._slide(id)

    def _replay_one(self, id: str, pending: PendingWrites) -> None:
        try:
            name, shard = self._shard_of(id)
            if shard.breaker.is_open:
                return
            try:
                self._replayer.replay(id)
            except BackendUnavailable:
                self._replay_failed(id, pending, name, shard)
            except ConversationBusy:
                _postpone(pending)
        except Exception as error:
            _postpone(pending)
            self._log(
                logging.ERROR,
                "Replay of conversation %s failed because of an unexpected error. Its changes are "
                "kept, and replay is tried again.",
                ids.hashed_id(id),
                exc_info=without_locals(error),
            )
        time.sleep(random.uniform(0, REPLAY_PAUSE))  # noqa: S311 - hides nothing

    def _slide(self, id: str) -> None:
        """Slide the expiry of a conversation that was loaded in the outage. Once is enough, if the
        primary is there."""
        name, shard = self._shard_of(id)
        if shard.breaker.is_open:
            return
        era, error = shard.breaker.era, None
        with self._offline.lock:
            self._offline.used.pop(id, None)
        try:
            if not self._primary.touch(id):
                self._offline.known.forget(id)
        except BackendUnavailable:
            error = self._ask(name, shard)
        except ConversationError:
            pass  # which the next load reports
        if error is not None:
            with self._offline.lock:
                self._offline.used[id] = None  # to be tried again
            shard.breaker.failed(era, str(error), transient=error.transient)
        time.sleep(random.uniform(0, REPLAY_PAUSE))  # noqa: S311 - hides nothing

    def _replay_failed(self, id: str, pending: PendingWrites, name: str, shard: Shard) -> None:
        """Find out whether the shard is there, and the conversation itself takes too long."""
        era = shard.breaker.era
        error = self._ask(name, shard)
        if error is not None:
            if not shard.breaker.failed(era, str(error), transient=error.transient):
                _postpone(pending)  # or else the probes have their own pauses
            return
        shard.breaker.succeeded(era)
        if not self._replayer.divide(id):
            _postpone(pending)

    def _announce_outage(self) -> None:
        if self._since is None and self._down():
            self._since, self._began = time.time(), time.monotonic()
            self._replayer.stats = ReplayStats()
            reason = self._reason
            degraded = signals.backend_degraded
            self._announcements.add(degraded.send_robust, self._primary, reason=reason)
            self._log(
                logging.ERROR,
                "The %s backend is unavailable: %s Conversations go on in the memory of this "
                "process, and it replays their changes when the backend is back. Do not kill it "
                "before, or they are lost.",
                self._primary.name,
                reason,
            )

    def _announce_recovery(self) -> None:
        if self._since is None:
            return
        seconds, stats = time.monotonic() - self._began, self._replayer.stats
        self._since = None
        journal = self._offline.journal
        refused, journal.refused = journal.refused, 0
        recovered = signals.backend_recovered
        told = {"seconds": seconds, **asdict(stats)}
        self._announcements.add(recovered.send_robust, self._primary, **told)
        self._log(
            logging.WARNING,
            "The %s backend is back after %.1f s: %d changes replayed (%d in part), %d lost. "
            "%d were refused, because the journal was full.",
            self._primary.name,
            seconds,
            stats.replayed,
            stats.conflicts,
            stats.lost,
            refused,
        )


def _postpone(pending: PendingWrites) -> None:
    """Let a conversation wait for another try, which holds up none of the others."""
    wait = min(LONGEST_RETRY_WAIT, SHORTEST_RETRY_WAIT * 2 ** min(pending.failures, 10))
    pending.failures += 1
    pending.retry_at = time.monotonic() + random.uniform(wait / 2, wait)  # noqa: S311 - as above
