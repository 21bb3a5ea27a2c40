"""The statements of a turn, written once. Django's ORM would write them anew each time, which
takes several times as long as the database needs for them.

What a turn costs is mostly round trips. So on PostgreSQL a row is read together with its newest
messages, and written together with new ones.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .models import Conversation, Message
from .statements import (
    COLUMNS,
    NEW,
    converters_of,
    insert_beside_sql,
    insert_messages_sql,
    insert_row_sql,
    name_of,
    preparers_of,
    select_messages_sql,
    select_row_sql,
    table_of,
    update_row_sql,
)

BATCH: Final = 500  # rows of one INSERT, where the database takes so many

T = TypeVar("T")


@dataclass(slots=True, repr=False)
class Found:
    """A row, and what was read along with it, on PostgreSQL alone.

    `at` is the time of the server; `xmin` the transaction that has written the row as it is;
    `newest` the newest messages, each after its length (4 bytes, big-endian), and `first` the first
    message.
    """

    row: Conversation | None = None
    at: float | None = None
    xmin: str | None = None
    newest: bytes | None = None
    first: bytes | None = None


def select_row(
    alias: str,
    prefix: str,
    key: str,
    *,
    lock: bool = False,
    along: tuple[str, ...] = (),
    window: int = 0,
) -> Found:
    """Return the row of a conversation.

    Args:
        along: the fields of `Found` that are read, too.
        window: how many messages the newest are.
    """
    connection = connections[alias]
    sql = select_row_sql(connection.vendor, alias, lock, along)
    with connection.cursor() as cursor:
        cursor.execute(sql, (window, prefix, key) if "newest" in along else (prefix, key))
        found = cursor.fetchone()
    if found is None:
        return Found()
    values = list(found[: len(COLUMNS)])
    for index, converters in converters_of(connection.vendor, alias):
        for convert, column in converters:
            values[index] = convert(values[index], column, connection)
    row = Conversation.from_db(alias, COLUMNS, values)
    return Found(row, **dict(zip(along, found[len(COLUMNS) :], strict=True)))


def select_messages(
    alias: str, conversation: int, start: int, stop: int, also: int
) -> list[tuple[int, bytes]]:
    """Return positions and bytes of messages at positions `start` to `stop`, and at `also`."""
    with connections[alias].cursor() as cursor:
        sql = select_messages_sql(connections[alias].vendor, alias)
        cursor.execute(sql, (conversation, start, stop, conversation, also, start))
        found: list[tuple[int, bytes]] = cursor.fetchall()
    return found


def update_row(alias: str, pk: int, columns: Mapping[str, Any]) -> None:
    """Write columns of a row, by their names in the model."""
    connection = connections[alias]
    sql = update_row_sql(connection.vendor, alias, tuple(columns))
    with connection.cursor() as cursor:
        cursor.execute(sql, (*_row_values(columns, connection), pk))


def update_row_and_insert(
    alias: str, pk: int, xmin: str, columns: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> bool:
    """Write columns of a row, and insert at most `BATCH` messages, in one statement of PostgreSQL.
    False: the row is not as that transaction has written it, and nothing was done."""
    connection = connections[alias]
    sql = update_row_sql(connection.vendor, alias, tuple(columns))
    sql = f"{sql} AND xmin = %s::xid"
    values = [*_row_values(columns, connection), pk, xmin]
    return _write_and_insert(alias, sql, values, rows)


def insert_row_and_insert(
    alias: str, columns: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> bool:
    """Insert a row and its messages as above. False: there is one by now, and nothing was done."""
    connection = connections[alias]
    sql = f"{insert_row_sql(connection.vendor, alias, tuple(columns))} ON CONFLICT DO NOTHING"
    return _write_and_insert(alias, sql, _row_values(columns, connection), rows)


def _write_and_insert(
    alias: str, sql: str, values: list[Any], rows: Sequence[Mapping[str, Any]]
) -> bool:
    connection = connections[alias]
    if rows:
        insert = insert_beside_sql(connection.vendor, alias, len(rows))
        sql = f"WITH written AS ({sql} RETURNING {name_of(alias, Conversation, 'id')}) {insert}"
        for row in rows:
            values += _message_values(row, connection)
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return bool(cursor.rowcount)


def _row_values(columns: Mapping[str, Any], connection: BaseDatabaseWrapper) -> list[Any]:
    prepared = preparers_of(connection.vendor, connection.alias, Conversation)
    return [
        prepared[name](value, connection) if name in prepared else value
        for name, value in columns.items()
    ]


def _message_values(row: Mapping[str, Any], connection: BaseDatabaseWrapper) -> list[Any]:
    prepared = preparers_of(connection.vendor, connection.alias, Message)
    return [
        prepared[name](row[name], connection) if name in prepared else row[name] for name in NEW
    ]


def delete_rows(
    alias: str, model: type[Conversation | Message], column: str, keys: Sequence[int]
) -> None:
    """Delete rows by integers in a column. Nothing may point at them."""
    connection = connections[alias]
    sql = f"DELETE FROM {table_of(alias, model)} WHERE {name_of(alias, model, column)}"
    most = connection.features.max_query_params or len(keys)
    for batch in _batches(keys, most):
        values: list[Any] = batch
        where = f"IN ({', '.join(['%s'] * len(batch))})"
        if connection.vendor == "postgresql":  # one value takes less than 500
            where, values = "= ANY(%s::bigint[])", [f"{{{','.join(map(str, batch))}}}"]
        with connection.cursor() as cursor:
            cursor.execute(f"{sql} {where}", values)


def insert_messages(alias: str, conversation: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert messages of a conversation, given by their names in the model."""
    connection = connections[alias]
    most = connection.features.max_query_params or BATCH * (len(NEW) + 1)
    for batch in _batches(rows, min(BATCH, most // (len(NEW) + 1))):
        sql = insert_messages_sql(connection.vendor, alias, len(batch))
        values: list[Any] = []
        for row in batch:
            values += (conversation, *_message_values(row, connection))
        with connection.cursor() as cursor:
            cursor.execute(sql, values)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch
