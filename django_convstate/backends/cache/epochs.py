"""Under which keys of a cache a conversation is: its epoch, a number that is 0 for almost all.

A lock does not stop its own holder. One that was paused, or whose packet was, writes when others
have long taken its lock away and committed. Kleppmann's remedy is a fencing token, but a cache
compares none: `set` overwrites whatever is there. So the conversation is moved out of its reach.

- Who takes a lock away, or gets no answer to a write of its own, seals the epoch first, and the
  conversation goes on in the next one, under other keys. A seal is set by `add`, and stays.
- A write counts only if the epoch is found unsealed afterwards. Else the writer has to look where
  the conversation is now, and whether its change is in it.
- What an epoch begins with is read after the one before was sealed. So it has all that counts.

A seal is read with the document, in one call, so that all this costs none while nothing fails.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..toolkit.stored import StoredConversation
from . import document

SEAL_SECONDS: Final = 24 * 3600  # a seal outlives what it hides by so long
CLOSED: Final = 0  # sealed, and what the next epoch begins with may not have been copied to it


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """The keys of one conversation."""

    prefix: str
    id: str

    def __call__(self, kind: str, epoch: int = 0) -> str:
        """Return the key of a kind: "doc", "lock", ..."""
        return f"{self.prefix}:{f'{kind}.{epoch}' if epoch else kind}:{self.id}"

    def seal(self, epoch: int) -> str:
        """Return the key of the seal of an epoch."""
        return self("sealed", epoch)


@dataclass(slots=True, repr=False)
class Place:
    """Where a conversation is."""

    epoch: int
    data: Any = None  # its document; None: there is none
    data_epoch: int = 0  # where that is: in an earlier epoch until it is copied
    stored: StoredConversation | None = None  # the document, parsed
    seals: dict[int, Any] = field(default_factory=dict)  # those that were found, by epoch

    @property
    def is_deleted(self) -> bool:
        """Whether there is a tombstone."""
        return document.moved_to(self.data) is not None

    @property
    def is_closed(self) -> bool:
        """Whether the document may still have to be copied from an earlier epoch."""
        return CLOSED in self.seals.values()


def find(get_many: Callable[[Sequence[str]], Mapping[str, Any]], keys: Keys) -> Place:
    """Look where a conversation is, and read its document."""
    place = Place(0)
    while True:
        epoch = place.epoch
        doc, seal = keys("doc", epoch), keys.seal(epoch)
        found = get_many([doc, seal])
        if seal not in found:
            if doc in found:
                place.data, place.data_epoch = found[doc], epoch
            return place
        place.seals[epoch] = found[seal]
        if found[seal] != CLOSED:
            place.data = None
        # Not what was found beside the seal: a cache may have read that before.
        elif (data := get_many([doc]).get(doc)) is not None:
            place.data, place.data_epoch = data, epoch
        place.epoch = epoch_after(epoch, found[seal])


def epoch_after(epoch: int, seal: Any) -> int:
    """Return the epoch that a seal refers to: the next one, or a later one."""
    return max(epoch + 1, seal) if type(seal) is int else epoch + 1
