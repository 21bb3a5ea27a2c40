"""Transactions of the database: begun, repeated once where that can help, and errors as ours."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connections,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import ProtectedError, RestrictedError
from django.utils.connection import ConnectionDoesNotExist

from ...exceptions import BackendUnavailable, InvalidBackend

# Others may insert the row that we are about to, so often.
_TRIES: Final = 5
# What another try may get past: SQLSTATE classes of lost connections, of transactions that were
# rolled back (deadlocks, serialization failures), and of servers that shut down.
_PASSING: Final = ("08", "40", "57P")
_UNDEFINED_TABLE: Final = "42P01"
_LOCK_NOT_AVAILABLE: Final = "55P03"

T = TypeVar("T")


class RowLocked(BackendUnavailable):
    """Another transaction has had the row for longer than we wait."""


class Transactions:
    """The transactions on one alias of DATABASES."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """The connection of this thread."""
        try:
            return connections[self.alias]
        except ConnectionDoesNotExist as error:
            raise InvalidBackend(f"DATABASES has no entry {self.alias!r}.") from error

    @property
    def is_in_one(self) -> bool:
        """Whether the caller has begun a transaction, which is then not ours to end."""
        return bool(self.connection.in_atomic_block)

    @property
    def can_be_statements(self) -> bool:
        """Whether a statement is a transaction by itself, and can be all that a commit writes."""
        connection = self.connection
        return connection.vendor == "postgresql" and connection.get_autocommit()

    def run(
        self, work: Callable[[], T], *, patience: float | None = None, may_be_lost: bool = False
    ) -> T:
        """Call `work` in a transaction. Within the caller's, it is a savepoint of that.

        Args:
            patience: for how many seconds to wait for a row that another transaction has; None: as
                the project has set `lock_timeout`. Only for a transaction of ours on PostgreSQL.
            may_be_lost: do not wait for the disk, because after a crash of the server it can be
                done again. Only for the same.

        Raises:
            BackendUnavailable: the database has refused it, or cannot be reached. Where the
                transaction is ours, it was tried twice if that could help.
            RowLocked: the patience is at an end.
        """
        return self._try_twice(lambda: self._attempt(work, patience, may_be_lost))

    def read(self, work: Callable[[], T]) -> T:
        """Call `work`, which only reads, without a transaction. Raises as `run` does."""
        return self._try_twice(work)

    def alone(self, work: Callable[[], T]) -> T:
        """Call `work`, which may write with one statement. Raises as `run` does."""
        return self._try_twice(work)

    def _try_twice(self, work: Callable[[], T]) -> T:
        connection = self.connection
        with translating_errors(self.alias):
            if connection.in_atomic_block:
                return work()
            connection.ensure_connection()  # where that fails, nothing was lost
            try:
                return work()
            except (OperationalError, InterfaceError) as error:
                if not _may_pass(connection, error):
                    raise
                connection.close_if_unusable_or_obsolete()
            return work()

    def _attempt(self, work: Callable[[], T], patience: float | None, may_be_lost: bool) -> T:
        settings = {}
        if self.connection.vendor == "postgresql" and not self.is_in_one:
            if patience is not None:
                settings["lock_timeout"] = str(round(patience * 1000))
            if may_be_lost:
                settings["synchronous_commit"] = "off"
        for left in reversed(range(_TRIES)):
            try:
                with _writing_at_once(self.connection), transaction.atomic(using=self.alias):
                    self._set_locally(settings)
                    return work()
            except (ProtectedError, RestrictedError):
                raise
            except IntegrityError:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _set_locally(self, settings: Mapping[str, str]) -> None:
        # For this transaction alone, so that a pool of connections may be between.
        for name, value in settings.items():
            with self.connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL {name} = {value}")


@contextmanager
def translating_errors(alias: str) -> Iterator[None]:
    """Raise `BackendUnavailable` for what the database raises. That a conversation cannot be
    deleted, because a foreign key of the project protects it, stays what it is."""
    try:
        yield
    except (ProtectedError, RestrictedError):
        raise
    except (DatabaseError, InterfaceError) as error:
        cls = RowLocked if _sqlstate(error) == _LOCK_NOT_AVAILABLE else BackendUnavailable
        raise cls(describe(alias, error)) from error


def describe(alias: str, error: Exception) -> str:
    """Return what is wrong, and what to do about it, without what the error quotes."""
    if _is_missing_table(error):
        return (
            f"DATABASES[{alias!r}] has no tables for conversations: run `manage.py migrate "
            f"convstate_database{'' if alias == 'default' else f' --database {alias}'}`, with "
            "'django_convstate.backends.database' in INSTALLED_APPS."
        )
    state = _sqlstate(error)
    return (
        f"DATABASES[{alias!r}] cannot be reached, or has refused: {type(error).__name__}"
        f"{f' ({state})' if state else ''}."
    )


@contextmanager
def _writing_at_once(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Have SQLite take its lock for writing when a transaction begins. One that reads first would
    be refused, and not made to wait, if others have written meanwhile."""
    wrapper: Any = connection
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        yield
        return
    connection.ensure_connection()
    mode, wrapper.transaction_mode = wrapper.transaction_mode, "IMMEDIATE"
    try:
        yield
    finally:
        wrapper.transaction_mode = mode


def _may_pass(connection: BaseDatabaseWrapper, error: Exception) -> bool:
    """Tell whether another try may succeed, and was not refused."""
    if connection.vendor == "sqlite":
        return False  # it has waited already
    state = _sqlstate(error)
    return state is None or state.startswith(_PASSING)


def _is_missing_table(error: Exception) -> bool:
    if isinstance(error, ProgrammingError):
        return _sqlstate(error) == _UNDEFINED_TABLE
    return isinstance(error, OperationalError) and "no such table" in str(error)


def _sqlstate(error: Exception) -> str | None:
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
