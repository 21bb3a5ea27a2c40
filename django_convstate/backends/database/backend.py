"""Conversations in a database: a row for each, and one for each of its messages.

A commit reads the row of the conversation, inserts the new messages and updates the row, and is one
transaction; what was said before is not touched. On PostgreSQL most are a single statement that
writes, if the row is as it was read; else the row is locked. A load does not write, but now and
then: see engine.py.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

from django.apps import apps
from django.core.checks import CheckMessage
from django.db import IntegrityError

from ...exceptions import (
    BackendUnavailable,
    ConversationBusy,
    ConversationConflict,
    InvalidBackend,
    InvalidConversationValue,
)
from ..base import ConversationStateBackend
from ..records import Acquired, Change, Committed, Record
from ..refusals import TURN_LOST, id_is_taken, refuse_restore
from ..reports import ConversationSummary, Finding, Health, Progress, PurgeReport, Selection
from ..toolkit.packed import PackedMessages, Pair, data_of
from ..toolkit.stored import apply_if_fits
from .checks import MISSING_APP, check_alias, check_lock_timeout, check_server, check_ttl
from .damage import find_damage
from .engine import Engine
from .listing import scan
from .messages import find_in
from .place import Damaged, Place
from .purging import Purge
from .storage import Writing, has_to_lock
from .transactions import RowLocked
from .turns import Turns, lease_columns

APP: Final = "django_convstate.backends.database"


class DatabaseBackend(ConversationStateBackend):
    """Keeps conversations in the tables of the app `convstate_database`. Its twins run in a thread,
    as Django's own do."""

    name: ClassVar = "database"
    option_names: ClassVar[tuple[str, ...]] = ("max_age", "database_alias", "key_prefix")

    def __init__(
        self,
        *,
        max_age: float | None = None,
        database_alias: str = "default",
        key_prefix: str = "convstate",
    ) -> None:
        """Use DATABASES[database_alias], and the conversations under `key_prefix`. No I/O here.

        Raises:
            InvalidBackend: the app is not installed.
        """
        super().__init__(max_age=max_age)
        if not apps.is_installed(APP):
            raise InvalidBackend(MISSING_APP)
        self.database_alias = database_alias
        self.key_prefix = key_prefix
        engine = Engine(database_alias, key_prefix, max_age)
        self._turns = Turns(engine)
        self._run, self._record = engine.run, engine.record
        self._transactions, self._storage = engine.transactions, engine.storage

    def load(self, id: str, window: int, known: Record | None = None) -> Record | None:
        """Read the row and its newest messages. The expiry is slid at most once in a twentieth of
        the idle time."""
        return self._record(id, window, slides=True)

    def peek(self, id: str, window: int) -> Record | None:
        """See `ConversationStateBackend.peek`."""
        return self._record(id, window, slides=False)

    def commit(self, id: str, change: Change) -> Committed:
        """Apply the change in a transaction, or in a savepoint of the caller's."""
        change.commit.sending()
        try:
            committed = self._transactions.alone(lambda: self._commit_at_once(id, change))
            if committed is None:
                committed = self._run(lambda: self._commit(id, change))
        except RowLocked as error:
            raise ConversationBusy(
                "Another transaction has had this conversation for longer than lock_timeout."
            ) from error
        if change.release:
            self._turns.ended(change.lease)
        return committed

    def _commit_at_once(self, id: str, change: Change) -> Committed | None:
        """Commit in two statements, the second of which does nothing if the row is not as the first
        one has read it. None: it is not, or the change takes more."""
        if not self._transactions.can_be_statements or has_to_lock(change):
            return None
        try:
            place = self._storage.read(id)
            committed, writing = self._apply(place, change)
            is_done = writing is None or self._storage.write_at_once(place, writing)
        except (Damaged, IntegrityError):  # or changed by others between two statements
            return None
        return committed if is_done else None

    def _commit(self, id: str, change: Change) -> Committed:
        place = self._storage.lock(id)
        committed, writing = self._apply(place, change)
        if writing is not None:
            with place.finding_damage():
                self._storage.write(place, writing)
        return committed

    def _apply(self, place: Place, change: Change) -> tuple[Committed, Writing | None]:
        """Apply a change in memory. Return the answer, and what is to be written."""
        with place.finding_damage():
            if place.stored is not None:
                place.messages.look_up([*(each.id for each in change.replace), *change.once])
                if place.stored.commits.has(change.commit):
                    return place.stored.answer_again(change, self.max_age), None
            queue = place.queue
            if change.lease is not None and not queue.is_held_by(change.lease):
                raise ConversationConflict(TURN_LOST)
            stored, committed = apply_if_fits(
                place.stored, change, place.now, self.max_age, is_deleted=place.is_deleted
            )
        leases: dict[str, Any] = {}
        if change.lease is not None and change.release:
            queue.leave(change.lease)
            leases = lease_columns(queue)
        has_state = bool(change.set or change.unset or change.increment)
        return committed, Writing(stored, leases, has_state)

    def read_messages(self, id: str, start: int, stop: int) -> Sequence[Pair]:
        """See `ConversationStateBackend.read_messages`."""

        def read() -> list[Any]:
            rows = self._storage.messages(id).filter(position__gte=start, position__lt=stop)
            return list(rows.values_list("position", "data"))

        found = self._transactions.read(read)
        first = found[0][0] if found else start
        return PackedMessages([bytes(data) for _, data in found], first)

    def find(self, id: str, message_id: str) -> tuple[int, bytes] | None:
        """See `ConversationStateBackend.find`."""
        found = self._transactions.read(lambda: find_in(self._storage.messages(id), [message_id]))
        if message_id not in found:
            return None
        position, packed = found[message_id]
        return position, data_of(packed)

    def exists(self, id: str) -> bool:
        """See `ConversationStateBackend.exists`."""

        def exists() -> bool:
            return self._storage.rows.filter(self._storage.is_stored(), key=id).exists()

        return self._transactions.read(exists)

    def touch(self, id: str, ttl: float | None = None) -> bool:
        """See `ConversationStateBackend.touch`."""

        def touch() -> bool:
            place = self._storage.lock(id)
            if place.stored is None:
                return False
            place.stored.touch(place.now, ttl)
            self._storage.slide(place, place.stored)
            return True

        return self._run(touch)

    def delete(self, id: str, expected_version: int | None = None) -> bool:
        """See `ConversationStateBackend.delete`. Foreign keys to the conversation are dealt with as
        their `on_delete` says."""

        def delete() -> bool:
            place = self._storage.lock(id)
            if place.stored is None or place.row is None:
                return False
            Change(expected_version=expected_version).refuse_unless_fits(place.stored.version, None)
            place.row.delete(using=self.database_alias)
            self._storage.bury(place)
            return True

        return self._run(delete)

    def rename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
        """Give the row its new id. Messages, and foreign keys to it, stay as they are."""

        def rename() -> bool:
            place, beside = self._storage.read_both(id, new_id)
            stored = place.stored
            if stored is None or place.row is None:
                return place.row is not None and place.row.moved_to == new_id
            Change(expected_version=expected_version).refuse_unless_fits(stored.version, None)
            if beside.stored is not None:
                raise id_is_taken()
            self._storage.move(place, beside, stored)
            return True

        return self._run(rename)

    def restore(
        self,
        id: str,
        record: Record,
        messages: Iterable[Pair],
        *,
        unless_deleted: bool = False,
        replaces: int | None = None,
    ) -> None:
        """See `ConversationStateBackend.restore`."""
        if record.owner is not None and "\0" in record.owner:  # as 0.1 has let pass
            raise InvalidConversationValue("An owner with a NUL character cannot be in a database.")
        again = messages if isinstance(messages, Sequence) else list(messages)

        def restore() -> None:
            place = self._storage.lock(id)
            refuse_restore(
                place.stored.version if place.stored else None,
                replaces=replaces,
                is_deleted=unless_deleted and place.is_deleted,
            )
            self._storage.restore(place, record, again)

        self._run(restore)

    def acquire(
        self, id: str, lease: str, seconds: float, window: int, known: Record | None = None
    ) -> Acquired:
        """See `ConversationStateBackend.acquire`. Within a transaction of the caller's, the row
        stays locked until that ends; and a lease that has to wait keeps no place, for the turn
        before it could not end while the row is locked."""
        return self._turns.acquire(id, lease, seconds, window)

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        """See `ConversationStateBackend.renew`."""
        return self._turns.renew(id, lease, seconds)

    def release(self, id: str, lease: str) -> None:
        """See `ConversationStateBackend.release`."""
        self._turns.release(id, lease)

    def scan(
        self,
        owner: str | None = None,
        *,
        limit: int | None = None,
        after: str | None = None,
        keys: Sequence[str] = (),
    ) -> Iterator[ConversationSummary]:
        """Yield what is stored, newest saved first. Without a limit, page by page: what is saved
        meanwhile is missed, and nothing comes twice."""
        return scan(self._storage, self._transactions, owner, limit, after, keys)

    def purge(
        self,
        selection: Selection,
        *,
        dry_run: bool = False,
        batch_size: int = 500,
        progress: Progress | None = None,
    ) -> PurgeReport:
        """See `ConversationStateBackend.purge`. Each batch is a transaction, of no more than some
        thousand messages."""
        purge = Purge(self._storage, self._transactions, selection, batch_size, progress)
        return purge.count() if dry_run else purge.run()

    def find_damage(self, ttl: float, *, progress: Progress | None = None) -> Iterator[Finding]:
        """See `ConversationStateBackend.find_damage`. What has expired is not looked at."""
        return find_damage(self._storage, self._transactions, progress)

    def health(self) -> Health:
        """Read a row, which need not be there."""
        started = time.perf_counter()
        try:
            self._transactions.read(self._storage.rows.filter(key="").exists)
        except BackendUnavailable as error:
            return Health(self.name, False, detail=str(error))
        latency_ms = (time.perf_counter() - started) * 1000
        detail = f"DATABASES[{self.database_alias!r}], {self._transactions.connection.vendor}"
        return Health(self.name, True, latency_ms, detail=detail)

    def erase(self) -> None:
        """See `ConversationStateBackend.erase`."""
        self._run(self._storage.all_rows.delete)

    def close(self) -> None:
        """Leave the connections to Django, which closes them after each request."""

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[CheckMessage]:
        """Check that the app and the entry of DATABASES are there, and what becomes of rows."""
        return [*check_alias(options["database_alias"]), *check_ttl()]

    @classmethod
    def check_deployment(cls, options: Mapping[str, Any]) -> list[CheckMessage]:
        """Ask the database whether its tables are there, and for how long it waits."""
        alias = options["database_alias"]
        return [*check_server(alias), *check_lock_timeout(alias)]
