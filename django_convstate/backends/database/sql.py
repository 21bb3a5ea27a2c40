"""The four statements of a turn, written once. Django's ORM would write them anew each time, which
takes several times as long as the database needs for them.

Names, placeholders and values are those that the fields of the models have in the database at hand.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import islice
from typing import Any, Final, TypeVar

from django.db import connections, models

from .models import Conversation, Message
from .times import ServerTime

# What a turn needs of a row: not what was copied for queries.
_COLUMNS: Final = tuple(
    field.attname
    for field in Conversation._meta.concrete_fields
    if field.attname not in {"state_json", "title", "cursor"}
)
_NEW: Final = ("conversation_id", "position", "message_id", "data", "role", "text", "sent_at")
_BATCH: Final = 500  # rows of one INSERT, where the database takes so many

T = TypeVar("T")
Converter = Callable[[Any, Any, Any], Any]


def select_row(
    alias: str, prefix: str, key: str, *, lock: bool, timed: bool
) -> tuple[Conversation | None, float | None]:
    """Return the row of a conversation, and the time of the server if it is asked for."""
    connection = connections[alias]
    sql = _select_row(connection.vendor, alias, lock, timed)
    with connection.cursor() as cursor:
        cursor.execute(sql, (prefix, key))
        found = cursor.fetchone()
    if found is None:
        return None, None
    values = list(found[: len(_COLUMNS)])
    for index, converters in _converters(connection.vendor, alias):
        for convert, column in converters:
            values[index] = convert(values[index], column, connection)
    return Conversation.from_db(alias, _COLUMNS, values), found[-1] if timed else None


def select_messages(
    alias: str, conversation: int, start: int, stop: int, also: int
) -> list[tuple[int, bytes]]:
    """Return positions and bytes of messages at positions `start` to `stop`, and at `also`."""
    with connections[alias].cursor() as cursor:
        sql = _select_messages(connections[alias].vendor, alias)
        cursor.execute(sql, (conversation, stop, start, also))
        found: list[tuple[int, bytes]] = cursor.fetchall()
    return found


def update_row(alias: str, pk: int, columns: Mapping[str, Any]) -> None:
    """Write columns of a row, by their names in the model."""
    connection = connections[alias]
    sql = _update_row(connection.vendor, alias, tuple(columns))
    values = [
        _fields(Conversation)[name].get_db_prep_save(value, connection)
        for name, value in columns.items()
    ]
    with connection.cursor() as cursor:
        cursor.execute(sql, (*values, pk))


def delete_rows(alias: str, keys: Sequence[int]) -> None:
    """Delete rows to which nothing points."""
    name, most = _name(alias, Conversation, "id"), connections[alias].features.max_query_params
    for batch in _batches(keys, most or len(keys)):
        places = ", ".join(["%s"] * len(batch))
        with connections[alias].cursor() as cursor:
            cursor.execute(
                f"DELETE FROM {_table(alias, Conversation)} WHERE {name} IN ({places})", batch
            )


def insert_messages(alias: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows of messages, given by their names in the model."""
    connection = connections[alias]
    fields = [_fields(Message)[name] for name in _NEW]
    most = connection.features.max_query_params or _BATCH * len(_NEW)
    for batch in _batches(rows, min(_BATCH, most // len(_NEW))):
        sql = _insert_messages(connection.vendor, alias, len(batch))
        values = [
            field.get_db_prep_save(row[field.attname], connection)
            for row in batch
            for field in fields
        ]
        with connection.cursor() as cursor:
            cursor.execute(sql, values)


@cache
def _fields(model: type[models.Model]) -> Mapping[str, "models.Field[Any, Any]"]:
    return {field.attname: field for field in model._meta.concrete_fields}


# Each for a kind of database, and an alias that is of that kind.


@lru_cache
def _converters(vendor: str, alias: str) -> Sequence[tuple[int, list[tuple[Converter, Any]]]]:
    """Return what makes values of Python of those of the database, for the columns that need it."""
    connection, found = connections[alias], []
    for index, name in enumerate(_COLUMNS):
        column = _fields(Conversation)[name].get_col(Conversation._meta.db_table)
        converters: list[Converter] = [
            *connection.ops.get_db_converters(column),
            *column.get_db_converters(connection),
        ]
        if converters:
            found.append((index, [(convert, column) for convert in converters]))
    return found


@lru_cache
def _select_row(vendor: str, alias: str, lock: bool, timed: bool) -> str:
    connection = connections[alias]
    names = [_name(alias, Conversation, name) for name in _COLUMNS]
    if timed:
        names.append(ServerTime.template)
    where = " AND ".join(
        f"{_name(alias, Conversation, name)} = {value}"
        for name, value in (("prefix", "%s"), ("key", "%s"), ("quarantined", "''"))
    )
    sql = f"SELECT {', '.join(names)} FROM {_table(alias, Conversation)} WHERE {where}"
    if lock and connection.features.has_select_for_update:
        sql = f"{sql} {connection.ops.for_update_sql()}"
    return sql


@lru_cache
def _select_messages(vendor: str, alias: str) -> str:
    conversation, position, data = (
        _name(alias, Message, name) for name in ("conversation_id", "position", "data")
    )
    return (
        f"SELECT {position}, {data} FROM {_table(alias, Message)} WHERE {conversation} = %s "
        f"AND {position} < %s AND ({position} >= %s OR {position} = %s) ORDER BY {position}"
    )


@lru_cache
def _update_row(vendor: str, alias: str, columns: tuple[str, ...]) -> str:
    changes = ", ".join(f"{_name(alias, Conversation, name)} = %s" for name in columns)
    key = _name(alias, Conversation, "id")
    return f"UPDATE {_table(alias, Conversation)} SET {changes} WHERE {key} = %s"


@lru_cache
def _insert_messages(vendor: str, alias: str, count: int) -> str:
    names = ", ".join(_name(alias, Message, name) for name in _NEW)
    row = f"({', '.join(['%s'] * len(_NEW))})"
    return f"INSERT INTO {_table(alias, Message)} ({names}) VALUES {', '.join([row] * count)}"


def _table(alias: str, model: type[models.Model]) -> str:
    return connections[alias].ops.quote_name(model._meta.db_table)


def _name(alias: str, model: type[models.Model], name: str) -> str:
    return connections[alias].ops.quote_name(_fields(model)[name].column or name)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch
