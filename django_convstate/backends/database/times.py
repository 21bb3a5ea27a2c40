"""Moments, as columns have them and as a backend counts them: in seconds since the epoch, by the
clock of the database."""

import math
import time
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from django.conf import settings
from django.db import connections
from django.db.models import DateTimeField, FloatField, Func, Value
from django.utils import timezone

from ... import clock
from ..reports import moment

# A difference of clocks that is smaller than this is none, in seconds.
_TOLERANCE: Final = 0.05


class ServerTime(Func):
    """The clock of PostgreSQL, in seconds since the epoch."""

    template = "extract(epoch from clock_timestamp())::float8"
    output_field = FloatField()


class CurrentTime(Value):
    """What time it is when a query is sent, and not when it is made: a view may keep a queryset."""

    def __init__(self) -> None:
        super().__init__(None, output_field=DateTimeField())

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """See `Value.as_sql`."""
        now = Value(when(clock.time()), output_field=DateTimeField())
        sql, params = now.as_sql(compiler, connection)
        return sql, tuple(params)


class ServerClock:
    """The clock of a database, as the difference from that of this process. It is read along with
    rows, so that it costs no statement of its own but one, where a process begins with a write.

    SQLite runs in this process, and has no other clock. A clock that a test has moved counts on
    top.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._ahead: float | None = None  # None: not known yet

    @cached_property
    def is_ours(self) -> bool:
        """Whether it is the clock of this process."""
        return connections[self._alias].vendor != "postgresql"

    def now(self) -> float:
        """Return what time it is. May ask the database, once."""
        if self.is_ours:
            return clock.time()
        if self._ahead is None:
            before = time.time()
            self.note(self._ask(), before)
        return clock.time() + (self._ahead or 0.0)

    def note(self, at: float | None, before: float) -> None:
        """Take note of the time of the server, if it is known: it was read since `before`, which is
        by the clock of this process."""
        after = time.time()
        if at is not None and after >= before:
            # It was read at some moment in between.
            slack = (after - before) / 2 + _TOLERANCE
            ahead, known = at - (before + after) / 2, self._ahead or 0.0
            if abs(ahead - known) > slack:
                self._ahead = ahead
            elif self._ahead is None:
                self._ahead = 0.0

    def _ask(self) -> float:
        with connections[self._alias].cursor() as cursor:
            cursor.execute(f"SELECT {ServerTime.template}")
            at: float = cursor.fetchone()[0]
        return at


def when(seconds: float) -> datetime:
    """Return a moment as a column takes it."""
    aware = moment(seconds)
    return aware if settings.USE_TZ else timezone.make_naive(aware)


def when_or_never(seconds: float) -> datetime | None:
    """Return a moment as a column takes it; None for `math.inf`."""
    return None if math.isinf(seconds) else when(seconds)


def in_utc(value: datetime) -> datetime:
    """Return a column as an aware datetime in UTC."""
    if timezone.is_naive(value):
        value = timezone.make_aware(value)
    return value if value.tzinfo is UTC else value.astimezone(UTC)


def seconds_of(value: datetime) -> float:
    """Return the seconds since the epoch of a column."""
    aware = timezone.make_aware(value) if timezone.is_naive(value) else value
    return aware.timestamp()
