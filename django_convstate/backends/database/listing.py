"""Many conversations: a listing in pages, and a purge in batches."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from django.db import connections
from django.db.models import Q, QuerySet
from django.db.models.signals import post_delete, pre_delete

from ..reports import (
    ConversationSummary,
    Progress,
    PurgeReport,
    Selection,
)
from ..toolkit.packed import KEY_SIZE
from .models import Conversation, Message
from .rows import unpack_state
from .sql import delete_rows
from .storage import Storage
from .times import in_utc, when
from .transactions import Transactions

PAGE: Final = 500  # conversations of one statement
# What a summary needs of a row.
_COLUMNS: Final = (
    "key",
    "owner",
    "version",
    "created_at",
    "modified_at",
    "last_accessed",
    "expires_at",
    "message_count",
    "messages_size",
    "state_size",
    "cursor",
)
_OF_THE_PURGED: Final = (
    "pk",
    "key",
    "version",
    "quarantined",
    "leases",
    "leased_until",
    "message_count",
)
PURGED_MESSAGES: Final = 10_000  # deleted in one transaction, unless one conversation has more


def others_point_at_conversations() -> bool:
    """Tell whether Django has to see to it what becomes of a foreign key, or of a signal, when a
    conversation is deleted."""
    related = {relation.related_model for relation in Conversation._meta.related_objects}
    return related != {Message} or any(
        signal.has_listeners(Conversation) for signal in (pre_delete, post_delete)
    )


def scan(
    storage: Storage,
    transactions: Transactions,
    owner: str | None,
    limit: int | None,
    after: str | None,
    keys: Sequence[str],
) -> Iterator[ConversationSummary]:
    """Yield what is stored, newest saved first, a page with each statement."""
    rows = storage.rows.filter(transactions.alone(storage.is_stored)).order_by("-cursor")
    if owner is not None:
        rows = rows.filter(owner=owner)
    columns = (*_COLUMNS, "state") if keys else _COLUMNS
    while limit is None or limit > 0:
        page = rows if after is None else rows.filter(cursor__lt=after)
        size = PAGE if limit is None else min(PAGE, limit)
        found: list[Any] = transactions.alone(
            partial(list, page.values_list(*columns, named=True)[:size])
        )
        for row in found:
            yield summary_of(row, keys)
        if len(found) < size:
            return
        after = found[-1].cursor
        limit = None if limit is None else limit - size


def summary_of(row: Any, keys: Sequence[str]) -> ConversationSummary:
    """Return what a listing tells of a row."""
    state = unpack_state(bytes(row.state)) if keys else {}
    return ConversationSummary(
        id=row.key,
        owner=row.owner,
        version=row.version,
        created_at=in_utc(row.created_at),
        modified_at=in_utc(row.modified_at),
        last_accessed=in_utc(row.last_accessed),
        expires_at=None if row.expires_at is None else in_utc(row.expires_at),
        message_count=row.message_count,
        # Without what stands before each message: its key, and the length of its id.
        size=row.state_size + row.messages_size - row.message_count * (KEY_SIZE + 1),
        state={key: state[key] for key in keys if key in state},
    )


def purge(
    storage: Storage,
    transactions: Transactions,
    selection: Selection,
    dry_run: bool,
    batch_size: int,
    progress: Progress | None,
) -> PurgeReport:
    """Delete what is selected, a batch in each transaction, in the order of the primary keys. One
    that is killed half way is begun again, and finds what is left."""
    selected = transactions.alone(partial(_selected, storage, selection))
    rows = storage.all_rows.filter(selected).order_by("pk")
    counted = Q(version__gt=0) if selection.is_thorough else Q(version__gt=0, quarantined="")
    total = transactions.alone(rows.filter(counted).count)
    if dry_run:
        if progress:
            progress(total, total)
        return PurgeReport(total, total, dry_run=True)
    deleted, last = 0, 0
    while True:
        batch = rows.filter(pk__gt=last)
        delete = partial(_delete, storage, batch, batch_size, buries=not selection.only_expired)
        gone = transactions.run(delete)
        if not gone:
            break
        last = gone[-1].pk
        deleted += sum(
            row.version > 0 and (selection.is_thorough or not row.quarantined) for row in gone
        )
        if progress:
            progress(deleted, max(total, deleted))
    return PurgeReport(max(total, deleted), deleted)


def _short(rows: Iterable[Any]) -> list[Any]:
    """Return the first rows, up to so many that they are deleted in a short transaction."""
    found, messages = list[Any](), 0
    for row in rows:
        messages += row.message_count
        if found and messages > PURGED_MESSAGES:
            break
        found.append(row)
    return found


def _selected(storage: Storage, selection: Selection) -> Q:
    now = storage.now()
    if selection.only_expired:
        expired = Q(expires_at__lte=when(now))
        if storage.max_age is not None:
            expired |= Q(version__gt=0, quarantined="", created_at__lte=when(now - storage.max_age))
        return expired & (Q(leased_until__isnull=True) | Q(leased_until__lte=when(now)))
    selected = Q(version__gt=0)
    if selection.owner is not None:
        selected &= Q(owner=selection.owner)
    if selection.idle_for is not None:
        selected &= Q(quarantined="", last_accessed__lte=when(now - selection.idle_for))
    return selected


def _delete(
    storage: Storage, rows: QuerySet[Conversation], size: int, *, buries: bool
) -> list[Any]:
    """Delete a batch, and return what there was. Those that others have locked wait for the
    next purge."""
    can_skip = connections[storage.alias].features.has_select_for_update_skip_locked
    locked = rows.select_for_update(skip_locked=can_skip)
    found = _short(locked.values_list(*_OF_THE_PURGED, named=True)[:size])
    keys = [row.pk for row in found]
    Message.objects.using(storage.alias).filter(conversation__in=keys).delete()
    if others_point_at_conversations():
        Conversation.rows.using(storage.alias).filter(pk__in=keys).only("pk").delete()
    elif keys:
        delete_rows(storage.alias, keys)
    if buries:
        storage.bury_all([row for row in found if not row.quarantined])
    return found
