"""Erases what is kept of an owner, and says what this process cannot erase."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from .. import clock, ids
from ..administration import repository_of
from ..backends.failover import FailoverBackend
from ..backends.records import QUARANTINE_SECONDS, TOMBSTONE_SECONDS
from ..backends.reports import Progress, Selection
from ..conversation.turn import LEASE
from ..exceptions import InvalidConversationValue
from ..ids import Owner
from ..store import ConversationStore, conversations


@dataclass(frozen=True, slots=True)
class Remainder:
    """What may still be there, and until when; None: this package does not know."""

    what: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What was erased of an owner, and what may remain elsewhere.

    Attributes:
        deleted: how many conversations, those in quarantine included.
        erased_at: when, in UTC.
        elsewhere: what other processes and places may hold.
    """

    owner: str = field(repr=False)
    backend: str
    deleted: int
    erased_at: datetime
    elsewhere: Sequence[Remainder]


def erase_owner(
    owner: Owner,
    *,
    store: ConversationStore = conversations,
    progress: Progress | None = None,
) -> ErasureReport:
    """Delete all that is kept of an owner: conversations, indexes, what is in quarantine, what this
    process remembers for an outage and has yet to replay. Nothing that comes late brings it back,
    for a day.

    Args:
        owner: a string or a user.
        store: where.
        progress: see `ConversationStore.purge`.

    Raises:
        InvalidConversationValue: it is no owner.
        InvalidBackend: the backend cannot find what is an owner's.
        BackendUnavailable: the store could not be reached. Run it again.
    """
    owned = ids.owner_of(owner)
    if owned is None:
        raise InvalidConversationValue("None, or a visitor who is not logged in, owns nothing.")
    report = repository_of(store).purge(
        Selection(owner=owned, is_thorough=True), dry_run=False, batch_size=500, progress=progress
    )
    now, backend = datetime.fromtimestamp(clock.time(), UTC), store.backend
    return ErasureReport(owned, backend.name, report.deleted, now, elsewhere(store, now))


def elsewhere(store: ConversationStore, now: datetime) -> Sequence[Remainder]:
    """Return what may be left of conversations that this process has deleted by now."""

    def after(seconds: float) -> datetime:
        return now + timedelta(seconds=seconds)

    found = [
        Remainder(
            "Requests and turns of other processes that had loaded a conversation keep it until "
            "they end. What they save is refused. The lease of a turn expires.",
            after(LEASE),
        ),
        Remainder(
            "The store knows the ids of what was deleted, and nothing else of it, so that no late "
            "change begins it anew.",
            after(TOMBSTONE_SECONDS),
        ),
        Remainder(
            "Damaged conversations whose owner cannot be read any more may be in quarantine.",
            after(QUARANTINE_SECONDS),
        ),
    ]
    if isinstance(store.backend, FailoverBackend):
        found += _for_outages(after(store.options.outage_memory), after(TOMBSTONE_SECONDS))
    found.append(
        Remainder(
            "Backups, replicas and logs of the server, files of export_sessions, and what an "
            "import or a migration is writing are not known here.",
            None,
        )
    )
    return found


def _for_outages(forgotten: datetime, tombstones_gone: datetime) -> Sequence[Remainder]:
    return [
        Remainder(
            "Other processes may remember a conversation for an outage (OUTAGE_MEMORY), and show "
            "it if the store is unavailable.",
            forgotten,
        ),
        Remainder(
            "Journals of other processes may hold changes from an outage. They are dropped when "
            "they are replayed, or with the process.",
            tombstones_gone,
        ),
    ]
