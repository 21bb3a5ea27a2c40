"""A purge: in batches, each of which finds its rows first, and then deletes them in a short
transaction. One that is killed half way is begun again, and finds what is left."""

import time
from collections.abc import Iterator, Sequence
from functools import partial, reduce
from itertools import accumulate
from operator import or_
from typing import Any, Final

from django.db import connections
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.db.models.signals import post_delete, pre_delete

from ..reports import Progress, PurgeReport, Selection
from .deletion import Batch, Deletion
from .models import Conversation, Message
from .sql import delete_rows
from .storage import Storage
from .times import when
from .transactions import Transactions

PURGED_MESSAGES: Final = 10_000  # that one transaction deletes
SECONDS: Final = 0.5  # that one may take; after one that took longer comes a smaller one
# Conversations that one statement deletes: in some 3 ms, which is how long others that need the
# processor may have to wait for it at a time.
AT_ONCE: Final = 150
REST: Final = 1.0  # pause after a batch, for others, as a share of the time that it took
_FOUND: Final = ("pk", "message_count", "dropped")
_LOCKED: Final = ("pk", "version", "quarantined")
_TO_BURY: Final = ("key", "leases", "leased_until")


def others_point_at_conversations() -> bool:
    """Tell whether Django has to see to it what becomes of a foreign key, or of a signal, when a
    conversation is deleted."""
    related = {relation.related_model for relation in Conversation._meta.related_objects}
    return related != {Message} or any(
        signal.has_listeners(Conversation) for signal in (pre_delete, post_delete)
    )


class Purge:
    """A purge of what is selected, at most `batch_size` conversations at a time."""

    def __init__(
        self,
        storage: Storage,
        transactions: Transactions,
        selection: Selection,
        batch_size: int,
        progress: Progress | None,
    ) -> None:
        self._storage = storage
        self._transactions = transactions
        self._batch_size = self._limit = batch_size
        self._progress = progress
        self._buries = not selection.only_expired
        self._counts_quarantine = selection.is_thorough
        self._passes = transactions.read(partial(_passes, storage, selection))
        self._deleted = 0

    def count(self) -> PurgeReport:
        """Tell how many conversations it would delete."""
        total = self._total()
        if self._progress:
            self._progress(total, total)
        return PurgeReport(total, total, dry_run=True)

    def run(self) -> PurgeReport:
        """Delete them. Those that others have locked wait for the next purge."""
        total = self._total()
        for where, order in self._passes:
            started = time.perf_counter()
            for deleted in self._batches(where, order):
                taken = time.perf_counter() - started
                self._deleted += deleted
                self._adapt(taken)
                if self._progress:
                    self._progress(self._deleted, max(total, self._deleted))
                self._rest(taken)
                started = time.perf_counter()
        return PurgeReport(max(total, self._deleted), self._deleted)

    def _adapt(self, taken: float) -> None:
        """Halve the next batch where one took long, and double it again where it did not."""
        is_slow = taken > SECONDS
        self._limit = (
            max(1, self._limit // 2) if is_slow else min(self._batch_size, self._limit * 2)
        )

    def _rest(self, taken: float) -> None:
        """Leave the database to others for a while after a batch. Not in a transaction of the
        caller's, where others may wait for what it has locked."""
        if not self._transactions.is_in_one:
            time.sleep(REST * taken)

    def _total(self) -> int:
        selected = reduce(or_, (where for where, _ in self._passes))
        rows = self._storage.all_rows if self._counts_quarantine else self._storage.rows
        return self._transactions.read(rows.filter(selected, version__gt=0).count)

    def _batches(self, where: Q, order: Sequence[str]) -> Iterator[int]:
        """Delete batch by batch, and yield how many of the rows were conversations. They are found
        in the order of an index, from where the batch before has ended."""
        is_postgres = connections[self._storage.alias].vendor == "postgresql"
        if is_postgres and not (self._buries or others_point_at_conversations()):
            return self._in_statements(where, order)
        return self._in_transactions(where, order)

    def _in_statements(self, where: Q, order: Sequence[str]) -> Iterator[int]:
        is_one = ExpressionWrapper(Q(version__gt=0, quarantined=""), BooleanField())
        selected = self._storage.all_rows.filter(where).values_list("pk", is_one)
        deletion = Deletion(self._storage.alias, selected, order)
        after = deletion.start
        while (batch := self._delete_next(deletion, after)) is not None:
            if batch.messages > PURGED_MESSAGES:
                yield self._delete_in_pieces(where, batch.last[-1])
            else:
                yield batch.deleted
            after = batch.last

    def _delete_next(self, deletion: Deletion, after: tuple[Any, ...]) -> Batch | None:
        run = partial(deletion.run, after, min(self._limit, AT_ONCE), PURGED_MESSAGES)
        # What has expired can be deleted again, if a crash of the server brings it back.
        if self._transactions.can_be_statements:
            return self._transactions.alone(partial(run, may_be_lost=True))
        return self._transactions.run(partial(run, may_be_lost=False))

    def _in_transactions(self, where: Q, order: Sequence[str]) -> Iterator[int]:
        rows, after = self._storage.all_rows.filter(where).order_by(*order), Q()
        while True:
            page = rows.filter(after).values_list(*_FOUND, named=True)[: self._limit]
            found: list[Any] = self._transactions.read(partial(list, page))
            if not found:
                return
            sizes = accumulate(row.message_count for row in found)
            del found[max(1, sum(size <= PURGED_MESSAGES for size in sizes)) :]
            last = self._storage.all_rows.filter(pk=found[-1].pk).values_list(*order)
            key = self._transactions.read(last.first)
            if key is None:  # it was deleted by others meanwhile, and so may be what comes before
                continue
            if found[0].message_count <= PURGED_MESSAGES or others_point_at_conversations():
                until = _compare(order, key, "lte")
                delete = partial(self._delete, where & after & until)
                yield self._transactions.run(delete, may_be_lost=not self._buries)
            else:
                yield self._delete_in_pieces(where, found[0].pk)
            after = _compare(order, key, "gt")

    def _delete_in_pieces(self, where: Q, pk: int) -> int:
        """Delete a conversation that has too many messages for one transaction: the first puts it
        out of sight, if it is still selected. Return whether it was one."""
        count = self._transactions.run(partial(self._set_aside, where & Q(pk=pk)))
        aside = self._storage.all_rows.filter(pk=pk).exclude(quarantined="")
        row: Any = self._transactions.read(aside.values_list(*_FOUND, named=True).first)
        if row is None:  # others have it locked, or have used it again
            return count
        messages = Message.objects.using(self._storage.alias).filter(conversation=pk)
        for position in range(
            row.dropped + PURGED_MESSAGES, row.dropped + row.message_count, PURGED_MESSAGES
        ):
            self._transactions.run(messages.filter(position__lt=position).delete)
        self._transactions.run(partial(self._delete, Q(pk=pk) & ~Q(quarantined="")))
        return count

    def _set_aside(self, where: Q) -> int:
        found = self._fetch(self._locking(where))
        for row in found:
            if not row.quarantined:
                self._storage.quarantine(row.pk, 0.0)
        return self._count_and_bury(found)

    def _delete(self, where: Q) -> int:
        alias, found = self._storage.alias, self._fetch(self._locking(where))
        keys = [row.pk for row in found]
        delete_rows(alias, Message, "conversation_id", keys)
        if others_point_at_conversations():
            Conversation.rows.using(alias).filter(pk__in=keys).only("pk").delete()
        else:
            delete_rows(alias, Conversation, "id", keys)
        return self._count_and_bury(found)

    def _locking(self, where: Q) -> QuerySet[Conversation]:
        can_skip = connections[self._storage.alias].features.has_select_for_update_skip_locked
        return self._storage.all_rows.filter(where).select_for_update(skip_locked=can_skip)

    def _fetch(self, rows: QuerySet[Conversation]) -> list[Any]:
        columns = (*_LOCKED, *_TO_BURY) if self._buries else _LOCKED
        return list(rows.values_list(*columns, named=True))

    def _count_and_bury(self, found: Sequence[Any]) -> int:
        if self._buries:
            self._storage.bury_all([row for row in found if not row.quarantined])
        return sum(
            row.version > 0 and (self._counts_quarantine or not row.quarantined) for row in found
        )


def _passes(storage: Storage, selection: Selection) -> list[tuple[Q, Sequence[str]]]:
    """Return what is selected, and in which order it is found."""
    now = storage.now()
    if selection.only_expired:
        is_free = Q(leased_until__isnull=True) | Q(leased_until__lte=when(now))
        passes: list[tuple[Q, Sequence[str]]] = [
            (Q(expires_at__lte=when(now)) & is_free, ("expires_at", "pk"))
        ]
        if storage.max_age is not None:  # which may have been longer when they were saved
            is_old = Q(version__gt=0, quarantined="", created_at__lte=when(now - storage.max_age))
            passes.append((is_old & is_free, ("pk",)))
        return passes
    selected = Q(version__gt=0)
    if selection.owner is not None:
        selected &= Q(owner=selection.owner)
    if selection.idle_for is not None:
        selected &= Q(quarantined="", last_accessed__lte=when(now - selection.idle_for))
    return [(selected, ("pk",))]


def _compare(order: Sequence[str], key: Sequence[Any], by: str) -> Q:
    """Return what is true of rows after a key ("gt"), or up to it ("lte")."""
    if order == ("pk",):
        return Q(**{f"pk__{by}": key[0]})
    # The first condition is for an index.
    nearly = Q(**{f"expires_at__{by[0]}te": key[0]})
    return nearly & (Q(**{f"expires_at__{by[0]}t": key[0]}) | Q(**{f"pk__{by}": key[1]}))
