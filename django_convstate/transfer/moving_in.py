"""Brings conversations in that an app has kept elsewhere until now, with the times of their
messages. docs/moving-in.md has recipes."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from django.utils import timezone

from .. import clock, ids
from ..administration import repository_of
from ..backends.records import Record
from ..backends.toolkit.packed import KEY_SIZE, NO_KEY, Pair
from ..codec import JSON, encode
from ..conversation.arguments import check_ttl
from ..exceptions import (
    ConversationConflict,
    ConversationInterrupted,
    InvalidConversationType,
    InvalidConversationValue,
)
from ..ids import Owner
from ..store import ConversationStore, conversations
from .lines import END


def bring_in(
    id: str,
    messages: Iterable[Mapping[str, JSON]],
    *,
    state: Mapping[str, JSON] | None = None,
    owner: Owner = None,
    ttl: float | None = None,
    created_at: datetime | None = None,
    store: ConversationStore = conversations,
) -> bool:
    """Store a conversation that was kept elsewhere until now, whole or not at all.

    Run twice, it changes nothing the second time, nor does it bring back what was deleted since,
    for a day. The setting MAX_MESSAGES is not applied. Its time to live begins now.

    Args:
        id: of the conversation: the same each time, `conversations.key("chat", row.pk)` for one.
        messages: what was said, oldest first: dictionaries with `role`, `content` and whatever else
            there is. `timestamp`, a datetime or ISO 8601, is when; without it, the message has no
            time. `id`, a string, is kept.
        state: what is to be under its keys.
        owner: a string or a user.
        ttl: idle seconds after which it goes; None: the setting TTL.
        created_at: when it began; None: with its first message that has a time, or now.
        store: where to.

    Returns:
        False: there is one with that id already, or there was until it was deleted.

    Raises:
        InvalidConversationValue, InvalidConversationType, InvalidConversationId: something cannot
            be stored; the message names its path. Nothing was.
        BackendUnavailable: the store could not be reached.
    """
    said = _Messages()
    for number, message in enumerate(messages):
        said.add(message, f"messages[{number}]")
    if not said.pairs and not state:
        raise InvalidConversationValue("An empty conversation is not stored.")
    now = clock.time()
    created = _time_of(created_at, "created_at")
    began = said.first or now if created is None else created.timestamp()
    idle: float = store.options.ttl if check_ttl(ttl) is None else check_ttl(ttl)
    record = Record(
        id=ids.validate_id(id),
        version=1,
        owner=ids.owner_of(owner),
        created_at=began,
        modified_at=max(began, said.last or began),
        last_accessed=now,
        expires_at=now + idle,
        ttl=idle,
        state={_key(key): encode(value, "state", key) for key, value in (state or {}).items()},
        messages=(),
        message_count=len(said.pairs),
        last_key=said.key.to_bytes(KEY_SIZE),
    )
    try:
        repository_of(store).restore(id, record, iter(said.pairs), unless_deleted=True)
    except (ConversationConflict, ConversationInterrupted):
        return False
    return True


class _Messages:
    """Messages as they are stored. `first` and `last` are the times of the first and the last one
    that has any, in seconds since the epoch; `key` is the sort key of the last."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self.first: float | None = None
        self.last: float | None = None
        self.key = int.from_bytes(NO_KEY)
        self._ids: set[str] = set()

    def add(self, message: Mapping[str, JSON], path: str) -> None:
        """Add a message. `path` names it in errors."""
        if not isinstance(message, Mapping):
            raise InvalidConversationType(f"{path} must be a dictionary.")
        fields = dict(message)
        at = _time_of(fields.get("timestamp"), f'{path}["timestamp"]')
        if at is not None:
            fields["timestamp"] = at.isoformat(timespec="milliseconds")
            self.last = at.timestamp()
            self.first = self.last if self.first is None else self.first
        self.key = max(self.key + 1, int((self.last or 0) * 1000) << 32)
        given = fields.get("id")
        id = ids.validate_message_id(given) if given is not None else f"{self.key:020x}"
        if id in self._ids:
            raise InvalidConversationValue(f"{path} has the id of another message.")
        self._ids.add(id)
        fields["id"] = id
        self.pairs.append((id, encode(fields, path)))


def _time_of(value: Any, path: str) -> datetime | None:
    if value is None:
        return None
    try:
        at = _aware(datetime.fromisoformat(value) if isinstance(value, str) else value)
        if 0 < at.timestamp() < END:
            return at
    except (AttributeError, TypeError, ValueError, OverflowError):
        pass
    raise InvalidConversationValue(
        f"{path} must be a datetime or a string in ISO 8601, from 1970 to 2286."
    )


def _aware(value: datetime) -> datetime:
    aware = timezone.make_aware(value) if timezone.is_naive(value) else value
    return aware.astimezone(UTC)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise InvalidConversationType("The keys of the state are strings.")
    encode(key, "A state key")
    return key
