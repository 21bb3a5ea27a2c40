"""The deletion of many conversations on PostgreSQL: batch by batch, each in one statement, from
which no rows are fetched."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import connections
from django.db.models import QuerySet

from .models import Conversation, Message
from .statements import name_of, table_of

# Below each value of a column that a batch may be ordered by.
_LOWEST: Final = {"expires_at": "-infinity", "pk": -1}


@dataclass(frozen=True, slots=True)
class Batch:
    """What one statement has done.

    Attributes:
        deleted: how many conversations.
        last: the row up to which it has come, by the columns of the order.
        messages: how many the rows had up to that. Above what was allowed, it is one row, and
            nothing was deleted.
    """

    deleted: int
    last: tuple[Any, ...]
    messages: int


class Deletion:
    """Deletes the rows that a query selects, with their messages. Nothing else may point at them.

    The statement is written once: Django's ORM takes longer for that than the database needs for
    many rows.
    """

    def __init__(self, alias: str, selected: QuerySet[Any, Any], order: Sequence[str]) -> None:
        """Prepare.

        Args:
            selected: its columns are the primary key, and whether the row is a conversation.
            order: of the batches, by columns that are not null, the last of them the primary key.
        """
        self._alias = alias
        self.start = tuple(_LOWEST[column] for column in order)
        next_sql, self._next_params = _sql_of(alias, selected.values("message_count", *order))
        gone_sql, self._gone_params = _sql_of(alias, selected)
        columns = ", ".join("id" if column == "pk" else column for column in order)
        id = name_of(alias, Conversation, "id")
        # As arrays they are looked up in an index; a join may read the whole table.
        are_gone = "= ANY(ARRAY(SELECT id FROM gone))"
        self._with = (
            f"WITH selected(message_count, {columns}) AS ({next_sql}), "
            f"next AS MATERIALIZED (SELECT * FROM selected WHERE ({columns}) > "
            f"({', '.join(['%s'] * len(order))}) ORDER BY {columns} LIMIT %s), "
            "counted AS (SELECT *, row_number() OVER ordered AS place, sum(message_count) "
            f"OVER ordered AS messages FROM next WINDOW ordered AS (ORDER BY {columns})), "
            "fits AS MATERIALIZED (SELECT * FROM counted WHERE messages <= %s OR place = 1), "
            f"gone(id, is_one) AS MATERIALIZED ({gone_sql} AND {id} = ANY(ARRAY("
            "SELECT id FROM fits WHERE messages <= %s)) FOR UPDATE SKIP LOCKED), "
            f"messages AS (DELETE FROM {table_of(alias, Message)} "
            f"WHERE {name_of(alias, Message, 'conversation_id')} {are_gone}), "
            f"rows AS (DELETE FROM {table_of(alias, Conversation)} WHERE {id} {are_gone}) "
        )
        self._columns = columns

    def run(
        self, after: tuple[Any, ...], limit: int, most_messages: int, *, may_be_lost: bool
    ) -> Batch | None:
        """Delete the rows that come next. None: there are no more.

        Args:
            after: the `last` of the batch before, or `start`.
            limit: so many at most, those that others have locked included.
            most_messages: that are deleted.
            may_be_lost: do not wait for the disk. Only where a statement is a transaction.
        """
        setting = ", set_config('synchronous_commit', 'off', true)" if may_be_lost else ""
        sql = (
            f"{self._with} SELECT (SELECT count(*) FILTER (WHERE is_one) FROM gone), messages, "
            f"{self._columns}{setting} FROM fits ORDER BY place DESC LIMIT 1"
        )
        with connections[self._alias].cursor() as cursor:
            cursor.execute(
                sql,
                (
                    *(*self._next_params, *after, limit),
                    *(most_messages, *self._gone_params, most_messages),
                ),
            )
            row = cursor.fetchone()
        if row is None:
            return None
        return Batch(row[0], row[2 : 2 + len(after)], int(row[1]))


def _sql_of(alias: str, query: QuerySet[Any, Any]) -> tuple[str, tuple[Any, ...]]:
    sql, params = query.query.get_compiler(alias).as_sql()
    return sql, tuple(params)
