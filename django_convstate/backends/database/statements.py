"""The text of the statements of a turn, and what goes between their values and those of Python.

Names, placeholders and values are those that the fields of the models have in the database at hand.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Final

from django.db import connections, models

from .models import Conversation, Message
from .times import ServerTime

# What a turn needs of a row: not what was copied for queries.
COLUMNS: Final = tuple(
    field.attname
    for field in Conversation._meta.concrete_fields
    if field.attname not in {"state_json", "title", "cursor"}
)
NEW: Final = ("position", "message_id", "data", "role", "text", "sent_at")

Converter = Callable[[Any, Any, Any], Any]


@cache
def fields_of(model: type[models.Model]) -> Mapping[str, "models.Field[Any, Any]"]:
    """Return the fields of a model by the names that its objects have them under."""
    return {field.attname: field for field in model._meta.concrete_fields}


# Each for a kind of database, and an alias that is of that kind.


@lru_cache
def converters_of(vendor: str, alias: str) -> Sequence[tuple[int, list[tuple[Converter, Any]]]]:
    """Return what makes values of Python of those of the database, for the columns that need it."""
    connection, found = connections[alias], []
    for index, name in enumerate(COLUMNS):
        column = fields_of(Conversation)[name].get_col(Conversation._meta.db_table)
        converters: list[Converter] = [
            *connection.ops.get_db_converters(column),
            *column.get_db_converters(connection),
        ]
        if converters:
            found.append((index, [(convert, column) for convert in converters]))
    return found


@lru_cache
def preparers_of(
    vendor: str, alias: str, model: type[models.Model]
) -> Mapping[str, Callable[[Any, Any], Any]]:
    """Return what makes values of the database of those of Python, for the columns that need it: a
    driver of PostgreSQL takes times and bytes as they are."""
    kinds = {"JSONField"}
    if vendor != "postgresql":
        kinds |= {"BinaryField", "DateTimeField"}
    return {
        name: field.get_db_prep_save
        for name, field in fields_of(model).items()
        if field.get_internal_type() in kinds
    }


@lru_cache
def select_row_sql(vendor: str, alias: str, lock: bool, along: tuple[str, ...]) -> str:
    """Return what reads `COLUMNS`, and then the fields of `Found` in `along`."""
    connection = connections[alias]
    names = [name_of(alias, Conversation, name) for name in COLUMNS]
    names += [_along(alias)[name] for name in along]
    where = " AND ".join(
        f"{name_of(alias, Conversation, name)} = {value}"
        for name, value in (("prefix", "%s"), ("key", "%s"), ("quarantined", "''"))
    )
    sql = f"SELECT {', '.join(names)} FROM {table_of(alias, Conversation)} WHERE {where}"
    if lock and connection.features.has_select_for_update:
        sql = f"{sql} {connection.ops.for_update_sql()}"
    return sql


def _along(alias: str) -> Mapping[str, str]:
    """Return what is selected for each field of `Found`."""
    table = table_of(alias, Conversation)
    id, dropped, count = (
        f"{table}.{name_of(alias, Conversation, name)}"
        for name in ("id", "dropped", "message_count")
    )
    conversation, position, data = (
        name_of(alias, Message, name) for name in ("conversation_id", "position", "data")
    )
    messages = f"FROM {table_of(alias, Message)} WHERE {conversation} = {id} AND {position}"
    framed = f"int4send(octet_length({data})) || {data}"
    return {
        "at": ServerTime.template,
        "xmin": "xmin::text",
        "newest": f"(SELECT string_agg({framed}, ''::bytea ORDER BY {position}) {messages} "
        f">= {dropped} + greatest({count} - %s, 0) AND {position} < {dropped} + {count})",
        "first": f"(SELECT {data} {messages} = {dropped})",
    }


@lru_cache
def select_messages_sql(vendor: str, alias: str) -> str:
    """Return what reads positions and bytes: of a range, and of one position before it."""
    conversation, position, data = (
        name_of(alias, Message, name) for name in ("conversation_id", "position", "data")
    )
    # Two ranges of an index: with OR it may be all of the conversation that is read.
    select = (
        f"SELECT {position}, {data} FROM {table_of(alias, Message)} WHERE {conversation} = %s AND"
    )
    return (
        f"{select} {position} >= %s AND {position} < %s "
        f"UNION ALL {select} {position} = %s AND {position} < %s ORDER BY 1"
    )


@lru_cache
def update_row_sql(vendor: str, alias: str, columns: tuple[str, ...]) -> str:
    """Return what writes columns of a row, by its primary key."""
    changes = ", ".join(f"{name_of(alias, Conversation, name)} = %s" for name in columns)
    key = name_of(alias, Conversation, "id")
    return f"UPDATE {table_of(alias, Conversation)} SET {changes} WHERE {key} = %s"


@lru_cache
def insert_row_sql(vendor: str, alias: str, columns: tuple[str, ...]) -> str:
    """Return what inserts a row."""
    names = ", ".join(name_of(alias, Conversation, name) for name in columns)
    row = ", ".join(["%s"] * len(columns))
    return f"INSERT INTO {table_of(alias, Conversation)} ({names}) VALUES ({row})"


@lru_cache
def insert_messages_sql(vendor: str, alias: str, count: int) -> str:
    """Return what inserts so many messages, each with the primary key of its conversation."""
    row = f"({', '.join(['%s'] * (len(NEW) + 1))})"
    return f"{_insert_into_messages(alias)} VALUES {', '.join([row] * count)}"


@lru_cache
def insert_beside_sql(vendor: str, alias: str, count: int) -> str:
    """Return what inserts messages of the row that the same statement has `written`. Unlike VALUES
    of an INSERT, those of a SELECT do not know of which types they are to be."""
    fields = fields_of(Message)
    types = [str(fields[name].db_type(connections[alias])).partition("(")[0] for name in NEW]
    row = f"({', '.join(f'%s::{each}' for each in types)})"
    id = name_of(alias, Conversation, "id")
    return (
        f"{_insert_into_messages(alias)} SELECT written.{id}, new.* "
        f"FROM written, (VALUES {', '.join([row] * count)}) AS new"
    )


def _insert_into_messages(alias: str) -> str:
    names = ", ".join(name_of(alias, Message, name) for name in ("conversation_id", *NEW))
    return f"INSERT INTO {table_of(alias, Message)} ({names})"


def table_of(alias: str, model: type[models.Model]) -> str:
    """Return the name of the table of a model, quoted."""
    return connections[alias].ops.quote_name(model._meta.db_table)


def name_of(alias: str, model: type[models.Model], name: str) -> str:
    """Return the name of a column, quoted."""
    return connections[alias].ops.quote_name(fields_of(model)[name].column or name)
