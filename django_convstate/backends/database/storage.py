"""The rows of conversations under one prefix: reading one, and writing it."""

import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Q, QuerySet

from ..records import QUARANTINE_SECONDS, TOMBSTONE_SECONDS, Change, Record
from ..toolkit.packed import KEY_SIZE, Pair, key_of, packing
from ..toolkit.stored import StoredConversation
from .messages import columns_of_messages, insert
from .models import Conversation, Message
from .place import Place
from .rows import columns_of, columns_of_row, lifetime_of, state_columns, stored_of
from .sql import (
    BATCH,
    Found,
    insert_row_and_insert,
    select_row,
    update_row,
    update_row_and_insert,
)
from .times import ServerClock, when


@dataclass(frozen=True, slots=True, repr=False)
class Writing:
    """What a commit writes: the conversation as it is to be, the columns of the leases, if they
    have changed, and whether the state has."""

    stored: StoredConversation
    leases: dict[str, Any]
    has_state: bool


class Storage:
    """The conversations under one prefix."""

    def __init__(self, alias: str, prefix: str, max_age: float | None) -> None:
        self.alias = alias
        self.prefix = prefix
        self.max_age = max_age
        self._clock = ServerClock(alias)

    @property
    def rows(self) -> QuerySet[Conversation]:
        """All rows, but for what is in quarantine."""
        return self.all_rows.filter(quarantined="")

    @property
    def all_rows(self) -> QuerySet[Conversation]:
        """All rows."""
        return Conversation.rows.using(self.alias).filter(prefix=self.prefix)

    def now(self) -> float:
        """Return what time it is."""
        return self._clock.now()

    def is_stored(self, relation: str = "") -> Q:
        """Return what is true of conversations that are stored, and have not expired."""
        at = self.now()
        lasts = Q(**{f"{relation}expires_at__isnull": True})
        lasts |= Q(**{f"{relation}expires_at__gt": when(at)})
        if self.max_age is not None:
            lasts &= Q(**{f"{relation}created_at__gt": when(at - self.max_age)})
        return lasts & Q(**{f"{relation}version__gt": 0})

    def messages(self, id: str) -> QuerySet[Message]:
        """Return the messages of a conversation, if it is stored."""
        conversation = {"conversation__prefix": self.prefix, "conversation__key": id}
        rows = Message.objects.using(self.alias).filter(
            self.is_stored("conversation__"),
            conversation__quarantined="",
            position__gte=F("conversation__dropped"),
            **conversation,
        )
        return rows.order_by("position")

    def read(self, id: str, *, window: int | None = None) -> Place:
        """Return what there is under an id, in one statement, with the newest messages if the
        database can.

        Args:
            window: how many messages; None: none.

        Raises:
            Damaged: it makes no sense.
        """
        if self._clock.is_ours:
            return self._place(id, select_row(self.alias, self.prefix, id))
        along = ("at", "xmin") if window is None else ("at", "newest", "first")
        before = time.time()
        found = select_row(self.alias, self.prefix, id, along=along, window=window or 0)
        self._clock.note(found.at, before)
        return self._place(id, found, window)

    def lock(self, id: str) -> Place:
        """Return what there is under an id, with its row locked until the transaction ends. In one
        statement. Raises as `read` does."""
        # It may have to wait: the time of the server would be that of before.
        return self._place(id, select_row(self.alias, self.prefix, id, lock=True))

    def read_both(self, id: str, other: str) -> tuple[Place, Place]:
        """Return what there is under two ids, with their rows locked. Raises as `read` does."""
        rows = self.rows.filter(key__in=(id, other)).order_by("key").select_for_update()
        found = {row.key: row for row in rows}
        return self._place(id, Found(found.get(id))), self._place(other, Found(found.get(other)))

    def _place(self, id: str, found: Found, window: int | None = None) -> Place:
        row = found.row
        place = Place(id, row, None, self.now(), found.xmin)
        if row is not None and row.version > 0:
            with place.finding_damage():
                stored = stored_of(row, self.alias)
                if stored.expires_at(self.max_age) > place.now:
                    place.stored = stored
                    if window is not None:
                        place.messages.take(window, found.newest, found.first)
        return place

    def record(self, place: Place, window: int) -> Record | None:
        """Return what `load` answers.

        Raises:
            Damaged: messages are missing; or they were changed after the row was read.
        """
        if place.stored is None or place.row is None:
            return None
        with place.finding_damage():
            place.messages.read(window)
        return place.stored.record(place.id, window, self.max_age)

    def slide(self, place: Place, stored: StoredConversation) -> None:
        """Write that a conversation was used, unless others have done so meanwhile."""
        stored.last_accessed = place.now
        row = place.kept
        rows = self.rows.filter(pk=row.pk, last_accessed=row.last_accessed)
        rows.update(**lifetime_of(stored, self.max_age))

    def write(self, place: Place, writing: Writing) -> None:
        """Write a conversation whose row is locked, in at most two statements beside those that
        remove messages."""
        columns = self._columns(place, writing)
        if place.stored is not None:
            row = place.kept
            columns["messages_size"] = row.messages_size + place.messages.write()
            update_row(self.alias, row.pk, columns)
            return
        messages = writing.stored.messages
        columns["messages_size"] = sum(map(len, messages.packed))
        pk = self.begin(place, columns)
        insert(self.alias, pk, messages.packed, messages.start)

    def write_at_once(self, place: Place, writing: Writing) -> bool:
        """Write a conversation whose row is not locked, in one statement of PostgreSQL.

        Returns: False: others have changed it since it was read, or it takes more than that.
        """
        row, messages = place.row, writing.stored.messages
        if place.stored is not None:
            fits = place.messages.only_grow
        else:
            fits = row is None or row.version == 0  # and not one that has expired
        if not fits or len(messages.packed) > BATCH:
            return False
        columns = self._columns(place, writing)
        size = 0 if row is None else row.messages_size
        columns["messages_size"] = size + sum(map(len, messages.packed))
        rows = list(columns_of_messages(messages.packed, messages.start))
        if row is not None and place.xmin is not None:
            return update_row_and_insert(self.alias, row.pk, place.xmin, columns, rows)
        new = Conversation(prefix=self.prefix, key=place.id, **columns)
        return insert_row_and_insert(self.alias, columns_of_row(new), rows)

    def _columns(self, place: Place, writing: Writing) -> dict[str, Any]:
        stored = writing.stored
        columns = columns_of(place.id, stored, self.max_age) | writing.leases
        if writing.has_state or place.stored is None:
            columns |= state_columns(stored.state)
        if place.stored is None:
            columns |= {"created_at": when(stored.created_at), "deleted_at": None, "moved_to": ""}
        return columns

    def begin(self, place: Place, columns: dict[str, Any]) -> int:
        """Write the row of what was not stored before. Return its primary key."""
        row = place.row
        if row is not None and row.version > 0:  # it has expired
            columns = place.leases | columns
            row.delete(using=self.alias)  # with what is done about foreign keys to it
            row = None
        if row is None:
            row = Conversation(prefix=self.prefix, key=place.id, **columns)
            row.save(using=self.alias, force_insert=True)
        else:
            update_row(self.alias, row.pk, columns)
        return int(row.pk)

    def restore(self, place: Place, record: Record, messages: Iterable[Pair]) -> None:
        """Write a conversation as a record describes it, in the place of what there is."""
        restored = StoredConversation.of(record, ())
        columns = columns_of(place.id, restored, self.max_age) | state_columns(record.state)
        columns |= {"created_at": when(record.created_at), "deleted_at": None, "moved_to": ""}
        if place.stored is None:
            pk = self.begin(place, columns)
        else:  # it is replaced; foreign keys to it stay
            pk = int(place.kept.pk)
            place.messages.rows.delete()
            update_row(self.alias, pk, columns)
        counted = _Counted(packing(messages), record.last_key)
        size = insert(self.alias, pk, counted, record.dropped)
        self.rows.filter(pk=pk).update(
            message_count=counted.count, last_key=counted.last_key, messages_size=size
        )

    def bury(self, place: Place, new_id: str = "") -> None:
        """Write that a conversation was deleted, or moved to a new id. Its row is not there (any
        more); its leases stay."""
        self._tombstone(place.id, place.now, new_id, place.leases).save(
            using=self.alias, force_insert=True
        )

    def bury_all(self, rows: Iterable[Any]) -> None:
        """Write that conversations were deleted. `rows` are what they were."""
        at = self.now()
        Conversation.rows.using(self.alias).bulk_create(
            self._tombstone(
                row.key, at, "", {"leases": row.leases, "leased_until": row.leased_until}
            )
            for row in rows
        )

    def move(self, place: Place, beside: Place, stored: StoredConversation) -> None:
        """Give a conversation the id of another place, where none is. Leases stay where they
        are."""
        if beside.row is not None:
            beside.row.delete(using=self.alias)
        stored.last_accessed = place.now
        columns = columns_of(beside.id, stored, self.max_age) | beside.leases
        self.rows.filter(pk=place.kept.pk).update(**columns, key=beside.id)
        self.bury(place, beside.id)

    def _tombstone(self, id: str, at: float, new_id: str, leases: dict[str, Any]) -> Conversation:
        moment = when(at)
        return Conversation(
            prefix=self.prefix,
            key=id,
            created_at=moment,
            modified_at=moment,
            last_accessed=moment,
            expires_at=when(at + TOMBSTONE_SECONDS),
            deleted_at=moment,
            moved_to=new_id,
            **leases,
        )

    def quarantine(self, pk: int, seconds: float = QUARANTINE_SECONDS) -> None:
        """Set a row aside, with its messages, for so many seconds."""
        self.rows.filter(pk=pk).update(
            quarantined=secrets.token_hex(16),
            expires_at=when(self.now() + seconds),
            leases=None,
            leased_until=None,
        )


def has_to_lock(change: Change) -> bool:
    """Tell whether a change takes more than one statement to write."""
    return bool(change.replace) or change.keep_messages is not None


class _Counted:
    """Packed messages, counted while they are iterated over."""

    def __init__(self, packed: Iterable[bytes], last_key: bytes) -> None:
        self._packed = packed
        self.count = 0
        self.last_key = last_key or bytes(KEY_SIZE)

    def __iter__(self) -> Iterator[bytes]:
        for packed in self._packed:
            self.count += 1
            self.last_key = max(self.last_key, key_of(packed))
            yield packed
