"""Looks for what is not as it should be among the rows, page by page, and changes nothing."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeVar

from django.db.models import Count, Exists, F, Max, Min, Model, OuterRef, Q, QuerySet

from ...exceptions import ConversationCorrupt
from ..reports import NO_TTL, QUARANTINED, Finding, Kind, Progress
from ..toolkit.packed import checked, id_of, key_of
from .copies import as_text
from .models import Conversation, Message
from .rows import stored_of
from .storage import Storage
from .transactions import Transactions

PAGE: Final = 100  # conversations of one statement, with their state
MESSAGES_PAGE: Final = 500  # messages of one statement
TRIES: Final = 5  # to find a conversation to which nothing is committed meanwhile
_MISREAD: Final = (LookupError, ValueError)

M = TypeVar("M", bound=Model)


def find_damage(
    storage: Storage, transactions: Transactions, progress: Progress | None
) -> Iterator[Finding]:
    """Yield what is wrong with rows of conversations, with their messages, and with messages that
    have none."""
    search = _Search(storage, transactions)
    yield from search.rows(progress)
    yield from search.without_ttl()
    yield from search.quarantined()
    yield from search.messages()
    yield from search.orphans()


class _Search:
    def __init__(self, storage: Storage, transactions: Transactions) -> None:
        self._storage, self._transactions = storage, transactions

    def rows(self, progress: Progress | None) -> Iterator[Finding]:
        """Look at the row of each conversation, and count its messages."""
        rows = self._storage.rows.filter(self._transactions.read(self._storage.is_stored))
        total, done = self._transactions.read(rows.count), 0
        for page in self._pages(rows, PAGE):
            sound = []
            for row in page:
                if (why := self._why_damaged(row)) is None:
                    sound.append(row)
                else:
                    yield _of_row("damaged", row, why)
            yield from self._incomplete(sound)
            done += len(page)
            if progress:
                progress(done, max(total, done))

    def _why_damaged(self, row: Conversation) -> str | None:
        try:
            stored_of(row, self._storage.alias)
        except ConversationCorrupt as error:
            return str(error)
        return None

    def _incomplete(self, rows: list[Conversation]) -> Iterator[Finding]:
        """Yield those that have other messages than they count. A commit may have come in between
        two statements, so what looks wrong is looked at again."""
        for suspect in self._wrongly_counted(rows):
            for _ in range(TRIES):
                wrong = self._wrongly_counted(self._read(suspect.pk))
                if not wrong:
                    break
                if [row.version for row in self._read(suspect.pk)] == [wrong[0].version]:
                    yield _of_row("partial", wrong[0], "Messages are missing, or are too many.")
                    break

    def _read(self, pk: int) -> list[Conversation]:
        row = self._storage.rows.filter(pk=pk, version__gt=0)
        return self._transactions.read(partial(list, row))

    def _wrongly_counted(self, rows: list[Conversation]) -> list[Conversation]:
        messages = Message.objects.using(self._storage.alias).filter(
            conversation__in=[row.pk for row in rows]
        )
        counted = (
            messages.order_by()
            .values("conversation_id")
            .annotate(number=Count("pk"), first=Min("position"), last=Max("position"))
        )
        read: Callable[[], list[Any]] = partial(
            list, counted.values_list("conversation_id", "number", "first", "last")
        )
        found = {pk: counts for pk, *counts in self._transactions.read(read)}
        return [row for row in rows if found.get(row.pk) != _counts_of(row)]

    def without_ttl(self) -> Iterator[Finding]:
        """Yield the rows that have to expire, and do not."""
        has_to = ~Q(quarantined="") | Q(version=0) | Q(ttl__isnull=False)
        if self._storage.max_age is not None:
            has_to = Q()
        rows = self._storage.all_rows.filter(has_to, expires_at__isnull=True)
        for page in self._pages(rows.defer("state", "state_json"), PAGE):
            for row in page:
                yield _of_row("without_ttl", row, NO_TTL)

    def quarantined(self) -> Iterator[Finding]:
        """Yield what loads have put in quarantine."""
        rows = self._storage.all_rows.exclude(quarantined="").defer("state", "state_json")
        for page in self._pages(rows, PAGE):
            for row in page:
                yield _of_row("quarantined", row, QUARANTINED)

    def messages(self) -> Iterator[Finding]:
        """Look at the bytes of each message, and at its id beside them."""
        rows = Message.objects.using(self._storage.alias).filter(
            self._transactions.read(partial(self._storage.is_stored, "conversation__")),
            conversation__prefix=self._storage.prefix,
            conversation__quarantined="",
        )
        beside = {"of": F("conversation__key"), "last_key": F("conversation__last_key")}
        for page in self._pages(rows.annotate(**beside), MESSAGES_PAGE):
            for message in page:
                if not _is_sound(message):
                    detail = f"The message at position {message.position} makes no sense."
                    yield _finding("damaged", message.of, message, detail)

    def orphans(self) -> Iterator[Finding]:
        """Yield the messages of which the conversation is missing, under whatever prefix that was:
        where foreign keys are not enforced, a restored dump may have such."""
        parent = Conversation.rows.using(self._storage.alias).filter(pk=OuterRef("conversation_id"))
        rows = (
            Message.objects.using(self._storage.alias).filter(~Exists(parent)).defer("data", "text")
        )
        for page in self._pages(rows, MESSAGES_PAGE):
            for message in page:
                yield _finding("orphaned", "", message, "The row of its conversation is missing.")

    def _pages(self, rows: QuerySet[M], size: int) -> Iterator[list[Any]]:
        """Yield all rows, page by page, in the order of their primary keys."""
        last = 0
        while True:
            read: Callable[[], list[Any]] = partial(
                list, rows.filter(pk__gt=last).order_by("pk")[:size]
            )
            if not (page := self._transactions.read(read)):
                return
            yield page
            last = page[-1].pk


def _counts_of(row: Conversation) -> list[int] | None:
    """Return how many messages a conversation has, and the positions of the first and the last;
    None: it has none."""
    if not row.message_count:
        return None
    return [row.message_count, row.dropped, row.dropped + row.message_count - 1]


def _is_sound(message: Any) -> bool:
    try:
        (packed,) = checked([bytes(message.data)])
        has_its_id = as_text(id_of(packed, message.position)) == message.message_id
        return has_its_id and key_of(packed) <= bytes(message.last_key)
    except _MISREAD:
        return False


def _of_row(kind: Kind, row: Conversation, detail: str) -> Finding:
    return _finding(kind, row.key, row, detail)


def _finding(kind: Kind, id: str, row: Model, detail: str) -> Finding:
    where = f"{row._meta.db_table} {row.pk}"
    return Finding(kind=kind, id=id, where=where, detail=detail)
