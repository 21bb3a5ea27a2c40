"""What a view holds: a dictionary and a list of messages, with an id and a time to live.

Between its load and its save it is plain memory, the same in sync and in async code. That memory is
its WorkingCopy; what talks to the store is here, in pairs.
"""

import asyncio
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime

from django.utils.asyncio import async_unsafe

from .. import conf, ids, tokens
from ..backends.reports import moment_or_never
from ..codec import JSON
from ..exceptions import InvalidConversationValue
from ..repository import Repository
from ..tracebacks import clears_locals
from .arguments import check_ttl, known_owner
from .messages import Messages
from .pending import REFUSALS
from .rename import arename, rename
from .templating import alters_data
from .turn import OnBusy, check_on_busy
from .turns import in_aturn, in_turn
from .working_copy import WorkingCopy


@clears_locals
class Conversation(MutableMapping[str, JSON]):
    """One conversation. Use it as a dictionary; `messages` is the list of what was said.

    Get one from `request.conversation` or from a `ConversationStore`; do not make one yourself.
    """

    __slots__ = ("_copy", "_messages", "_repository")

    def __init__(self, repository: Repository, copy: WorkingCopy) -> None:
        self._repository = repository
        self._copy = copy
        self._messages = Messages(copy, repository)

    # The dictionary.

    def __getitem__(self, key: str) -> JSON:
        return self._copy.state[key]

    def __setitem__(self, key: str, value: JSON) -> None:
        self._copy.state[key] = value

    def __delitem__(self, key: str) -> None:
        del self._copy.state[key]

    def __contains__(self, key: object) -> bool:
        return key in self._copy.state

    def __iter__(self) -> Iterator[str]:
        return iter(self._copy.state)

    def __len__(self) -> int:
        return len(self._copy.state)

    def __bool__(self) -> bool:
        # `if request.conversation` asks whether anything was said or noted, not for a key.
        return bool(len(self._copy.state) or len(self._copy.log))

    def get(self, key: str, default: JSON = None) -> JSON:
        """Return the value under a key, or `default`."""
        # Not as the base class does it, where each missing key would have its traceback cleared.
        return self._copy.state.get(key, default)

    @alters_data
    def clear(self) -> None:
        """Drop all keys. The messages stay."""
        super().clear()

    @alters_data
    def setdefault(self, key: str, default: JSON = None) -> JSON:
        """Return the value under a key, which is `default` if there is none. A list or dictionary
        that others begin under the same key at the same time is merged with this one."""
        return self._copy.state.setdefault(key, default)

    @alters_data
    def popitem(self) -> tuple[str, JSON]:
        """Remove one key and return it with its value."""
        return super().popitem()

    def incr(self, key: str, delta: int = 1) -> int:
        """Add `delta` to the counter `key` and return the sum as far as it is known here. What
        others add at the same time is not lost, and seen after the next load.

        Raises:
            InvalidConversationType: the value, or `delta`, is not an integer.
            InvalidConversationValue: the sum would leave the signed 64-bit range.
        """
        return self._copy.state.incr(key, delta)

    # What it is.

    @property
    def messages(self) -> Messages:
        """What was said, oldest first."""
        return self._messages

    @property
    def id(self) -> str:
        """The key in the store. Not a secret, but nothing to give to a client: that is `token`."""
        return self._copy.id

    @property
    def token(self) -> str:
        """The id and a digest of the owner, signed: what a client may hold."""
        return tokens.sign_id(self._copy.id, self._copy.owner)

    @property
    def owner(self) -> str | None:
        """The owner, as given to `create` or `claim`; None: there is none."""
        return self._copy.owner

    @property
    def version(self) -> int:
        """How often it was saved, as of our last load or save; 0: never."""
        return self._copy.version

    @property
    def ttl(self) -> float:
        """How long it may be idle, in seconds; `math.inf`: for ever. Starts anew with each load and
        save. What is assigned holds from the next save on."""
        return self._copy.ttl

    @ttl.setter
    def ttl(self, ttl: float) -> None:
        self._copy.set_ttl(check_ttl(ttl))

    @property
    def created_at(self) -> datetime | None:
        """When it was first saved (aware, UTC); None: not yet."""
        return _moment(self._copy.created_at)

    @property
    def modified_at(self) -> datetime | None:
        """When it was last saved, as of our last load or save (aware, UTC); None: not yet."""
        return _moment(self._copy.modified_at)

    @property
    def last_accessed(self) -> datetime | None:
        """When we last loaded or saved it (aware, UTC); None: it is not stored."""
        return _moment(self._copy.last_accessed)

    @property
    def expires_at(self) -> datetime | None:
        """When it expires unless it is used before (aware, UTC); None: it is not stored, or never
        expires."""
        return _moment(self._copy.expires_at)

    @property
    def is_new(self) -> bool:
        """Whether it has never been stored, as far as is known."""
        return self._copy.is_new

    @property
    def is_modified(self) -> bool:
        """Whether there is something to save."""
        return self._copy.is_modified

    @property
    def degraded(self) -> bool:
        """Whether the store is unavailable, and this is what is known of it here."""
        return self._copy.degraded

    def __repr__(self) -> str:
        copy = self._copy
        return (
            f"<Conversation {ids.hashed_id(copy.id)}: version {copy.version}, "
            f"{len(copy.state)} keys, {len(copy.log)} messages>"
        )

    __sentry_repr__ = __repr__

    # What talks to the store.

    @alters_data
    def save(self, expected_version: int | None = None) -> None:
        """Store what has changed; nothing if nothing has. Safe to call again after an error.

        Args:
            expected_version: refuse if others have saved since this `version`.

        Raises:
            ConversationConflict: others have, or the id is taken.
            ConversationInterrupted: it was deleted, or expired, in the meantime.
            ConversationCorrupt: it was damaged in the meantime.
            ConversationTooLarge: with what others have added it would be over a limit.
            MessageNotFound: a message that was updated is gone.
            InvalidConversationType, InvalidConversationValue: a counter is no integer any more, or
                would leave the 64-bit range. After these nothing was saved, and what had changed is
                forgotten; `reload()` and decide again.
            InvalidConversationValue, ConversationTooLarge: something bad was put into a nested
                value. Nothing was sent.
            ConversationBusy, BackendUnavailable: the change is kept, and sent first next time.
        """
        self._copy.stage(expected_version)
        self._send()

    @alters_data
    async def asave(self, expected_version: int | None = None) -> None:
        """See `save`."""
        self._copy.stage(expected_version)
        await self._asend()

    @alters_data
    @async_unsafe("In async code, write `async with conversation.aturn():`.")
    def turn(
        self, on_busy: OnBusy = "wait", timeout: float | None = None
    ) -> AbstractContextManager["Conversation"]:
        """Return a context manager for one turn at a time:

            with conversation.turn():
                conversation.messages.append("user", text)
                conversation.messages.append("assistant", ask_the_model(conversation))

        It saves what had changed before, waits for all that came earlier, loads what they have
        left, and at the end, however late that is, saves what has changed in the block at once.
        After an exception that is forgotten; but if the client hangs up in the middle, which is a
        GeneratorExit or a cancelled task here, what was said until then is saved, and what is being
        streamed is marked as interrupted. If the process dies, the turn is over within seconds.

        Args:
            on_busy: "wait" until it is free, or "reject" if it is not free at once.
            timeout: for how many seconds to wait at most; None: TURN_WAIT.

        Raises as `save` does, before the block and after it, and:
            ConversationBusy: it was not free, or not in time.
            ConversationConflict: at the end, if the process was paused and its turn taken for dead.
            RuntimeError: this object is in a turn already.
        """
        wait = self._turn_wait(on_busy, timeout)
        return in_turn(self, self._copy, self._repository, wait, clears_locals(self._send))

    @alters_data
    def aturn(
        self, on_busy: OnBusy = "wait", timeout: float | None = None
    ) -> AbstractAsyncContextManager["Conversation"]:
        """See `turn`."""
        wait = self._turn_wait(on_busy, timeout)
        return in_aturn(self, self._copy, self._repository, wait, clears_locals(self._asend))

    @alters_data
    def delete(self) -> None:
        """Delete it from the store. This object is an empty, new conversation then, with a new id,
        as a session is after `flush()`."""
        self._copy.check_writable()
        self._repository.delete(self._copy.id)
        self._copy.begin_anew()

    @alters_data
    async def adelete(self) -> None:
        """See `delete`."""
        self._copy.check_writable()
        await self._repository.adelete(self._copy.id)
        self._copy.begin_anew()

    @alters_data
    def touch(self, ttl: float | None = None) -> None:
        """Start its time to live anew, with a new one in seconds if given. One that was never
        stored has none yet.

        Raises:
            ConversationInterrupted: it was deleted, or has expired, in the meantime.
            InvalidConversationValue: `ttl` is no duration.
        """
        if self._begin_touch(ttl):
            self._copy.touched(self._repository.touch(self._copy.id, ttl), ttl)

    @alters_data
    async def atouch(self, ttl: float | None = None) -> None:
        """See `touch`."""
        if self._begin_touch(ttl):
            self._copy.touched(await self._repository.atouch(self._copy.id, ttl), ttl)

    def _begin_touch(self, ttl: float | None) -> bool:
        self._copy.check_writable()
        check_ttl(ttl)
        if ttl is not None and not self._copy.is_stored:
            self._copy.set_ttl(ttl)
        return self._copy.is_stored

    @alters_data
    def reload(self) -> None:
        """Load it again. What was not saved is forgotten.

        Raises:
            ConversationNotFound: there is none (any more), or it has become another owner's.
        """
        copy, repository = self._copy, self._repository
        if copy.is_read_only:
            copy.reload(repository.peek(copy.id))
        else:
            copy.reload(repository.load(copy.id))

    @alters_data
    async def areload(self) -> None:
        """See `reload`."""
        copy, repository = self._copy, self._repository
        if copy.is_read_only:
            copy.reload(await repository.apeek(copy.id))
        else:
            copy.reload(await repository.aload(copy.id))

    @alters_data
    def claim(self, owner: ids.Owner) -> None:
        """Make it `owner`'s, a string's or a user's. If it is stored, that is saved at once, with
        all else that changed.

        Raises as `save` does, above all:
            ConversationConflict: it is another owner's.
            InvalidConversationValue: that cannot be an owner.
        """
        if self._copy.claim(known_owner(owner)):
            self.save()

    @alters_data
    async def aclaim(self, owner: ids.Owner) -> None:
        """See `claim`."""
        if self._copy.claim(known_owner(owner)):
            await self.asave()

    @alters_data
    def cycle_id(self) -> None:
        """Save it and move it to a new id, so that the old one is of no use to those who knew it.
        One that was never stored has an id that was never given out, and keeps it; so does one that
        a login in this request is to claim, because its old token opens it no more then.

        Raises as `save` does, and:
            ConversationNotFound: it was deleted, or has expired.
            BackendUnavailable: it has its old id or, if only the answer was lost, a new one that no
                client knows.
        """
        self._copy.check_writable()
        self.save()
        if self._copy.is_stored and not self._copy.is_noted:
            self._copy.id = rename(self._repository, self._copy.id)

    @alters_data
    async def acycle_id(self) -> None:
        """See `cycle_id`."""
        self._copy.check_writable()
        await self.asave()
        if self._copy.is_stored and not self._copy.is_noted:
            self._copy.id = await arename(self._repository, self._copy.id)

    # How a change is sent, and a turn taken.

    def _send(self) -> None:
        copy = self._copy
        while (change := copy.pending.first) is not None:
            try:
                committed = self._repository.commit(copy.id, change)
            except REFUSALS:
                copy.refuse(change)
                raise
            has_created = copy.acknowledge(change, committed)
            self._repository.announce_saved(self, has_created)
        copy.save_failed = False

    async def _asend(self) -> None:
        copy = self._copy
        try:
            while (change := copy.pending.first) is not None:
                try:
                    committed = await self._repository.acommit(copy.id, change)
                except REFUSALS:
                    copy.refuse(change)
                    raise
                has_created = copy.acknowledge(change, committed)
                await self._repository.aannounce_saved(self, has_created)
        except asyncio.CancelledError:
            # Not the view's to answer: the client has gone. The end of the request sends it.
            copy.save_failed = False
            raise
        copy.save_failed = False

    def _turn_wait(self, on_busy: OnBusy, timeout: float | None) -> float:
        check_on_busy(on_busy)
        self._copy.check_writable()
        if timeout is not None and (problem := conf.seconds(timeout)):
            raise InvalidConversationValue(f"timeout {problem}.")
        if on_busy == "reject":
            return 0
        return self._repository.options.turn_wait if timeout is None else timeout


def working_copy_of(conversation: Conversation) -> WorkingCopy:
    """Return what is in memory of a conversation, for the middleware and the consumers."""
    return conversation._copy


def _moment(seconds: float) -> datetime | None:
    return moment_or_never(seconds) if seconds else None
