"""What there is under the id of a conversation."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from ...exceptions import ConversationCorrupt
from ..records import TOMBSTONE_SECONDS
from ..toolkit.lease_queue import LeaseQueue
from ..toolkit.stored import StoredConversation
from .messages import MessageRows
from .models import Conversation
from .times import seconds_of


class Damaged(Exception):
    """The row with this primary key, or its messages, make no sense."""

    def __init__(self, pk: int, why: ConversationCorrupt) -> None:
        super().__init__(str(why))
        self.pk = pk
        self.why = why


@dataclass(slots=True, repr=False)
class Place:
    """What there is under an id: its row, the conversation in it (None: it is not stored, or has
    expired), the leases, and which transaction has written the row, if that was read."""

    id: str
    row: Conversation | None
    stored: StoredConversation | None
    now: float
    xmin: str | None = None

    @property
    def is_deleted(self) -> bool:
        """Whether it is known that the conversation was deleted."""
        at = None if self.row is None else self.row.deleted_at
        return at is not None and seconds_of(at) + TOMBSTONE_SECONDS > self.now

    @property
    def queue(self) -> LeaseQueue:
        """The leases, as they are now. A change of it changes nothing here."""
        leases = None if self.row is None else self.row.leases
        return LeaseQueue.parse(None if leases is None else bytes(leases), self.now)

    @property
    def messages(self) -> MessageRows:
        """The messages of a conversation that is stored."""
        return cast("MessageRows", cast("StoredConversation", self.stored).messages)

    @property
    def kept(self) -> Conversation:
        """The row, where there is one."""
        return cast("Conversation", self.row)

    @property
    def leases(self) -> dict[str, Any]:
        """The columns of the leases, as they are."""
        if self.row is None:
            return {"leases": None, "leased_until": None}
        return {"leases": self.row.leases, "leased_until": self.row.leased_until}

    @contextmanager
    def finding_damage(self) -> Iterator[None]:
        """Raise `Damaged` where what is stored makes no sense."""
        try:
            yield
        except ConversationCorrupt as error:
            if self.row is None:
                raise
            raise Damaged(self.row.pk, error) from None
