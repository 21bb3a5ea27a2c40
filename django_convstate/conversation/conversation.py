"""The object in your hand: a dictionary and a list of messages, with an id and a time to live.

Between its load and its save it is plain memory, the same in sync and in async code. It knows what
changed; what it does not know is where it is kept.
"""

import asyncio
import time
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django.utils.asyncio import async_unsafe

from .. import ids, tokens
from ..backends.records import Change, Committed, Create, Record
from ..codec import JSON
from ..exceptions import ConversationConflict, ConversationInterrupted, InvalidConversationType
from . import rename as moving
from . import turn as turns
from .messages import Messages
from .pending import Outbox
from .state import State
from .templating import alters_data

if TYPE_CHECKING:
    from ..store import ConversationStore


class Conversation(MutableMapping[str, JSON]):
    """One conversation. Use it as a dictionary; `messages` is the list of what was said.

    Get one from `request.conversation` or from a `ConversationStore`; do not make one yourself.
    """

    __slots__ = (
        "_create",
        "_created_at",
        "_degraded",
        "_expires_at",
        "_id",
        "_last_accessed",
        "_outbox",
        "_owner",
        "_state",
        "_store",
        "_ttl",
        "_turn",
        "_version",
        "messages",
        "save_failed",
    )

    def __init__(
        self,
        store: "ConversationStore",
        id: str,
        record: Record | None = None,
        *,
        owner: str | None = None,
        ttl: float | None = None,
        create: Create = Create.MUST_BE_NEW,
    ) -> None:
        self._store = store
        # Whether the last save raised. Then it is the view's to answer, and not the middleware's.
        self.save_failed = False
        self._state = State(store)
        self.messages = Messages(store)
        self._outbox = Outbox()
        self._turn: turns.Turn | None = None
        if record is None:
            self._begin(id, owner, ttl, create)
        else:
            self._take(record)

    # The dictionary.

    def __getitem__(self, key: str) -> JSON:
        return self._state[key]

    def __setitem__(self, key: str, value: JSON) -> None:
        self._state[key] = value

    def __delitem__(self, key: str) -> None:
        del self._state[key]

    def __contains__(self, key: object) -> bool:
        return key in self._state

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def __bool__(self) -> bool:
        # `if request.conversation` asks whether anything was said or noted, not for a key.
        return bool(len(self._state) or len(self.messages))

    def incr(self, key: str, delta: int = 1) -> int:
        """Add `delta` to the counter `key` and return the sum as far as it is known here. What
        others add at the same time is not lost, and seen after the next load.

        Raises:
            InvalidConversationType: the value, or `delta`, is not an integer.
            InvalidConversationValue: the sum would leave the signed 64-bit range.
        """
        return self._state.incr(key, delta)

    # What it is.

    @property
    def id(self) -> str:
        """The key in the store. Not a secret, but nothing to give to a client: that is `token`."""
        return self._id

    @property
    def token(self) -> str:
        """The id with our signature: what a client may hold, in a cookie or a header."""
        return tokens.sign_id(self._id)

    @property
    def owner(self) -> str | None:
        """Whose it is, as given to `create` or `claim`; None: nobody's."""
        return self._owner

    @property
    def version(self) -> int:
        """How often it was saved, as of our last load or save; 0: never."""
        return self._version

    @property
    def ttl(self) -> float:
        """How long it may be idle, in seconds. Starts anew with each load and save."""
        return self._ttl

    @property
    def created_at(self) -> datetime | None:
        """When it was first saved (aware, UTC); None: not yet."""
        return _moment(self._created_at)

    @property
    def last_accessed(self) -> datetime | None:
        """When we last loaded or saved it (aware, UTC); None: it is not stored."""
        return _moment(self._last_accessed)

    @property
    def expires_at(self) -> datetime | None:
        """When it goes if nobody comes back to it (aware, UTC); None: it is not stored."""
        return _moment(self._expires_at)

    @property
    def is_new(self) -> bool:
        """Whether it has never been stored, as far as is known."""
        return self._version == 0 and not self._degraded

    @property
    def is_modified(self) -> bool:
        """Whether there is something to save."""
        return bool(self._outbox or self._state.is_modified or self.messages.is_modified)

    @property
    def degraded(self) -> bool:
        """Whether the store is away, and this is what was known here, with what is new since. It
        is brought home when the store is back."""
        return self._degraded

    def __repr__(self) -> str:
        return (
            f"<Conversation {ids.hashed_id(self._id)}: version {self._version}, "
            f"{len(self._state)} keys, {len(self.messages)} messages>"
        )

    # The doors: what talks to the store, in pairs.

    @alters_data
    def save(self, expected_version: int | None = None) -> None:
        """Store what has changed; nothing if nothing has. Safe to call again after an error.

        Args:
            expected_version: refuse if somebody else has saved since this `version`.

        Raises:
            ConversationConflict: somebody has, or the id is taken.
            ConversationInterrupted: it was deleted, or expired, in the meantime.
            ConversationCorrupt: it was damaged in the meantime.
            InvalidConversationType, InvalidConversationValue: a counter is no integer any more, or
                would leave the 64-bit range. After these four nothing was saved, and what had
                changed is forgotten; `reload()` and decide again.
            InvalidConversationValue, ConversationTooLarge: something bad was put into a nested
                value. Nothing was sent.
            ConversationBusy, BackendUnavailable: the change is kept, and sent first next time.
        """
        self._pack(expected_version)
        self._send()

    async def asave(self, expected_version: int | None = None) -> None:
        self._pack(expected_version)
        await self._asend()

    @async_unsafe("In async code, write `async with conversation.aturn():`.")
    def turn(self, on_busy: turns.OnBusy = "wait") -> AbstractContextManager["Conversation"]:
        """Return a context manager for one turn at a time:

            with conversation.turn():
                conversation.messages.append("user", text)
                conversation.messages.append("assistant", ask_the_model(conversation))

        It saves what had changed before, waits for all who came earlier, loads what they have left,
        and at the end, however late that is, saves what has changed in the block at once. After an
        exception that is forgotten. If the process dies, the turn is over within seconds.

        Args:
            on_busy: "wait" for up to TURN_WAIT seconds, or "reject" if it is not free at once.

        Raises as `save` does, before the block and after it, and:
            ConversationBusy: it was not free, or not in time.
            ConversationConflict: at the end, if the process was paused and its turn taken for dead.
            RuntimeError: this object is in a turn already.
        """
        return turns.turn(self, on_busy)

    def aturn(self, on_busy: turns.OnBusy = "wait") -> AbstractAsyncContextManager["Conversation"]:
        return turns.aturn(self, on_busy)

    @alters_data
    def delete(self) -> None:
        """Delete it from the store. This object is an empty, new conversation then, with a new id,
        as a session is after `flush()`."""
        self._store.delete(self._id)
        self._begin(ids.new_id(), None, None, Create.MUST_BE_NEW)

    async def adelete(self) -> None:
        await self._store.adelete(self._id)
        self._begin(ids.new_id(), None, None, Create.MUST_BE_NEW)

    @alters_data
    def touch(self) -> None:
        """Start its time to live anew. One that was never stored has none yet.

        Raises:
            ConversationInterrupted: it was deleted, or has expired, in the meantime.
        """
        if self._is_stored:
            self._touched(self._store.touch(self._id))

    async def atouch(self) -> None:
        if self._is_stored:
            self._touched(await self._store.atouch(self._id))

    @alters_data
    def reload(self) -> None:
        """Load it again. Whatever was not saved is forgotten.

        Raises:
            ConversationNotFound: there is none (any more).
        """
        self._take(self._store.load(self._id))

    async def areload(self) -> None:
        self._take(await self._store.aload(self._id))

    def claim(self, owner: str) -> None:
        """Make it `owner`'s. If it is stored, that is saved at once, with all else that changed.

        Raises as `save` does, above all:
            ConversationConflict: it is somebody else's.
        """
        if self._claims(owner):
            self.save()

    async def aclaim(self, owner: str) -> None:
        if self._claims(owner):
            await self.asave()

    @alters_data
    def cycle_id(self) -> None:
        """Save it and move it to a new id, so that whoever knew the old one is left with nothing.
        Do so when a user logs in. Its age, for MAX_AGE, starts anew. One that was never stored has
        an id that nobody knows, and keeps it.

        Raises as `save` does, and:
            ConversationNotFound: it was deleted, or has expired.
        """
        self.save()
        if self._is_stored:
            self._take(moving.move(self._store, self._id))

    async def acycle_id(self) -> None:
        await self.asave()
        if self._is_stored:
            self._take(await moving.amove(self._store, self._id))

    # What the doors share.

    @property
    def _is_stored(self) -> bool:
        return self._create is Create.MUST_EXIST or self._degraded

    def _begin(self, id: str, owner: str | None, ttl: float | None, create: Create) -> None:
        self._id = id
        self._version = 0
        self._owner = owner
        self._ttl = self._store.options.ttl if ttl is None else ttl
        self._degraded = False
        self._created_at = self._last_accessed = self._expires_at = 0.0
        self._create = create
        self._state.take_stored({})
        self.messages.take_stored(id, [], 0)
        self._outbox.clear()

    def _take(self, record: Record) -> None:
        self._id = record.id
        self._version = record.version
        self._owner = record.owner
        self._degraded = record.degraded
        self._ttl = record.ttl
        self._created_at = record.created_at
        self._last_accessed = record.last_accessed
        self._expires_at = record.expires_at
        # Of nothing known, it is not known either that there is something. The store may be back
        # before this is saved.
        unknown = record.degraded and not record.version
        self._create = Create.EITHER if unknown else Create.MUST_EXIST
        self.save_failed = False
        self._state.take_stored(record.state)
        self.messages.take_stored(
            record.id, record.messages, record.message_count, at_hand=record.degraded
        )
        self._outbox.clear()

    def _pack(self, expected_version: int | None = None, owner: str | None = None) -> None:
        """Put what has changed into the outbox, and regard it as stored from now on."""
        self.save_failed = True
        if not (expected_version is None or type(expected_version) is int):
            raise InvalidConversationType("An expected version is an integer.")
        if expected_version is not None and self._outbox:
            # What waits there since an outage was to be checked against the same version, and makes
            # a new one.
            self._outbox.expect(expected_version)
            expected_version += len(self._outbox)
        changed, unset, counted = self._state.take_changes()
        keep, appended = self.messages.take_changes()
        if changed or unset or counted or appended or keep is not None or owner is not None:
            change = Change(
                create=self._create,
                expected_version=expected_version,
                owner=owner if self._is_stored else self._owner,
                # Of one that may be there already, its own is kept.
                ttl=self._ttl if self._create is Create.MUST_BE_NEW else None,
                default_ttl=self._ttl,
                set=changed,
                unset=unset,
                increment=counted,
                keep_messages=keep,
                append=appended,
                lease=self._turn.lease if self._turn and self._turn.id == self._id else None,
            )
            self._outbox.add(change, len(self.messages))
            self._create = Create.MUST_EXIST

    def _send(self) -> None:
        while self._outbox:
            with self._outbox as change:
                committed = self._store.commit(self._id, change)
            self._sent(change, committed)
            self._store.announce_saved(self, _creates(change, committed))
        self.save_failed = False

    async def _asend(self) -> None:
        while self._outbox:
            with self._outbox as change:
                try:
                    committed = await self._store.acommit(self._id, change)
                except asyncio.CancelledError:
                    # Not the view's to answer: the client has gone. What ends a stream sends it.
                    self.save_failed = False
                    raise
            self._sent(change, committed)
            await self._store.aannounce_saved(self, _creates(change, committed))
        self.save_failed = False

    def _sent(self, change: Change, committed: Committed) -> None:
        surplus = self._outbox.answered(change, committed)
        if surplus is None:
            return
        if surplus:
            self.messages.note_others(surplus, len(change.append))
        self._version = committed.version
        self._degraded = committed.degraded
        self._owner = change.owner or self._owner
        self._last_accessed = time.time()
        self._expires_at = committed.expires_at
        self._created_at = self._created_at or self._last_accessed

    def _touched(self, was_there: bool) -> None:
        if not was_there:
            raise ConversationInterrupted("The conversation was deleted or has expired.")
        self._last_accessed = time.time()
        self._expires_at = self._last_accessed + self._ttl
        if (max_age := self._store.options.max_age) is not None:
            self._expires_at = min(self._expires_at, self._created_at + max_age)

    def _claims(self, owner: str) -> bool:
        """Prepare to become `owner`'s, and tell whether that has to be saved."""
        ids.validate_owner(owner)
        if self._owner not in (None, owner):
            raise ConversationConflict("The conversation belongs to another owner.")
        if self._owner == owner:
            return False
        if self._is_stored:
            self._pack(owner=owner)
        else:
            self._owner = owner
        return self._is_stored


def _creates(change: Change, committed: Committed) -> bool:
    return committed.version == 1 and change.create is not Create.MUST_EXIST


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
