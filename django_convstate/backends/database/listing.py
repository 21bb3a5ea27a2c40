"""A listing of conversations, in pages."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from ..reports import ConversationSummary
from ..toolkit.packed import KEY_SIZE
from .rows import unpack_state
from .storage import Storage
from .times import in_utc
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


def scan(
    storage: Storage,
    transactions: Transactions,
    owner: str | None,
    limit: int | None,
    after: str | None,
    keys: Sequence[str],
) -> Iterator[ConversationSummary]:
    """Yield what is stored, newest saved first, a page with each statement."""
    rows = storage.rows.filter(transactions.read(storage.is_stored)).order_by("-cursor")
    if owner is not None:
        rows = rows.filter(owner=owner)
    columns = (*_COLUMNS, "state") if keys else _COLUMNS
    while limit is None or limit > 0:
        page = rows if after is None else rows.filter(cursor__lt=after)
        size = PAGE if limit is None else min(PAGE, limit)
        found: list[Any] = transactions.read(
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
