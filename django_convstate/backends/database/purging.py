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
from .models import Conversation, Message
from .sql import delete_rows, delete_selected
from .storage import Storage
from .times import when
from .transactions import Transactions

PURGED_MESSAGES: Final = 10_000  # that one transaction deletes
SECONDS: Final = 0.5  # that one may take; after one that took longer comes a smaller one
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
            for found, rows in self._batches(where, order):
                started = time.perf_counter()
                self._deleted += self._delete_batch(found, rows)
                self._adapt(time.perf_counter() - started)
                if self._progress:
                    self._progress(self._deleted, max(total, self._deleted))
        return PurgeReport(max(total, self._deleted), self._deleted)

    def _adapt(self, taken: float) -> None:
        """Halve the next batch where one took long, and double it again where it did not."""
        is_slow = taken > SECONDS
        self._limit = (
            max(1, self._limit // 2) if is_slow else min(self._batch_size, self._limit * 2)
        )

    def _total(self) -> int:
        selected = reduce(or_, (where for where, _ in self._passes))
        rows = self._storage.all_rows if self._counts_quarantine else self._storage.rows
        return self._transactions.read(rows.filter(selected, version__gt=0).count)

    def _batches(self, where: Q, order: Sequence[str]) -> Iterator[tuple[Q, list[Any]]]:
        """Yield which rows are next, so many that a transaction is short, and what they are now.
        They are found in the order of an index, from where the batch before has ended."""
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
            until = _compare(order, key, "lte")
            yield where & after & until, found
            after = _compare(order, key, "gt")

    def _delete_batch(self, where: Q, batch: Sequence[Any]) -> int:
        """Delete rows that were found, if they are still selected. Return how many of them were
        conversations."""
        if batch[0].message_count <= PURGED_MESSAGES or others_point_at_conversations():
            # What has expired can be deleted again, if a crash of the server brings it back.
            may_be_lost = not self._buries
            return self._transactions.run(partial(self._delete, where), may_be_lost=may_be_lost)
        # Too many messages for one transaction: out of sight with it first.
        (row,) = batch
        count = self._transactions.run(partial(self._set_aside, where & Q(pk=row.pk)))
        messages = Message.objects.using(self._storage.alias).filter(conversation=row.pk)
        for position in range(
            row.dropped + PURGED_MESSAGES, row.dropped + row.message_count, PURGED_MESSAGES
        ):
            self._transactions.run(messages.filter(position__lt=position).delete)
        self._transactions.run(partial(self._delete, Q(pk=row.pk) & ~Q(quarantined="")))
        return count

    def _set_aside(self, where: Q) -> int:
        found = self._fetch(self._locking(where))
        for row in found:
            if not row.quarantined:
                self._storage.quarantine(row.pk, 0.0)
        return self._count_and_bury(found)

    def _delete(self, where: Q) -> int:
        alias, others_point = self._storage.alias, others_point_at_conversations()
        rows = self._locking(where)
        if connections[alias].vendor == "postgresql" and not (self._buries or others_point):
            is_one = ExpressionWrapper(Q(version__gt=0, quarantined=""), BooleanField())
            return delete_selected(alias, rows.values_list("pk", is_one))
        found = self._fetch(rows)
        keys = [row.pk for row in found]
        delete_rows(alias, Message, "conversation_id", keys)
        if others_point:
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
