"""What a view holds: a dictionary and a list of messages, with an id and a time to live.

Between its load and its save it is plain memory, the same in sync and in async code. That memory is
its WorkingCopy; what talks to the store is here, in pairs.
"""

from collections.abc import Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime

from django.utils.asyncio import async_unsafe

from .. import ids, tokens
from ..backends.reports import moment_or_never
from ..codec import JSON
from ..repository import Repository, refuse_others
from ..tracebacks import clears_locals
from .arguments import check_ttl, known_owner, turn_wait
from .messages import Messages
from .rename import arename, rename
from .sending import asend, send
from .templating import alters_data
from .turn import OnBusy
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
        return self._copy.state.get(key, default)

    @alters_data
    def clear(self) -> None:
        """Drop all keys. The messages stay. Raises `BackendUnavailable` in an outage, if nothing is
        known here of what is stored."""
        self._copy.check_known()
        self._copy.state.clear()

    @alters_data
    def setdefault(self, key: str, default: JSON = None) -> JSON:
        """Return the value under a key, which is `default` if there is none. A list or dictionary
        that others begin under the same key at the same time is merged with this one."""
        return self._copy.state.setdefault(key, default)

    @alters_data
    def pop(self, key: str, *default: JSON) -> JSON:
        """Remove a key and return its value; `default`, if given and there is none."""
        return self._copy.state.pop(key, *default)

    @alters_data
    def popitem(self) -> tuple[str, JSON]:
        """Remove one key and return it with its value."""
        return self._copy.state.popitem()

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
        """The id and a digest of the owner, signed: what a client may hold. While the store may not
        have the conversation, it says so."""
        return tokens.sign_id(self._copy.id, self._copy.owner, unsaved=self._copy.unconfirmed)

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
        """When it expires if it is not used (aware, UTC); None: never, or it is not stored."""
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
            BackendUnavailable: `expected_version`, and nothing is known here of what is stored.
        """
        refusals = self._copy.stage(expected_version)
        send(self, self._copy, self._repository, refusals)

    @alters_data
    async def asave(self, expected_version: int | None = None) -> None:
        """See `save`."""
        refusals = self._copy.stage(expected_version)
        await asend(self, self._copy, self._repository, refusals)

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
            ConversationBusy: it was not free, or not in time; or other threads did not stop
                saving this object.
            ConversationConflict: at the end, if the process was paused and its turn taken for dead.
            RuntimeError: this object is in a turn already.
        """
        self._copy.check_writable()
        wait = turn_wait(on_busy, timeout, self._repository.options)
        return in_turn(self, self._copy, self._repository, wait)

    @alters_data
    def aturn(
        self, on_busy: OnBusy = "wait", timeout: float | None = None
    ) -> AbstractAsyncContextManager["Conversation"]:
        """See `turn`."""
        self._copy.check_writable()
        wait = turn_wait(on_busy, timeout, self._repository.options)
        return in_aturn(self, self._copy, self._repository, wait)

    @alters_data
    def delete(self) -> None:
        """Delete it from the store. This object is an empty, new conversation then, with a new id,
        as a session is after `flush()`."""
        self._copy.check_writable()
        self._repository.check_visitor(self._copy.id, self._copy.visitor)
        self._repository.delete(self._copy.id)
        self._copy.begin_anew()

    @alters_data
    async def adelete(self) -> None:
        """See `delete`."""
        self._copy.check_writable()
        await self._repository.acheck_visitor(self._copy.id, self._copy.visitor)
        await self._repository.adelete(self._copy.id)
        self._copy.begin_anew()

    @alters_data
    def touch(self, ttl: float | None = None) -> None:
        """Start its time to live anew, with a new one in seconds if given. One that was never
        stored has none yet.

        Raises:
            ConversationInterrupted, InvalidConversationValue: it is gone, or `ttl` is no duration.
        """
        if self._begin_touch(ttl):
            self._repository.check_visitor(self._copy.id, self._copy.visitor)
            self._copy.touched(self._repository.touch(self._copy.id, ttl), ttl)

    @alters_data
    async def atouch(self, ttl: float | None = None) -> None:
        """See `touch`."""
        if self._begin_touch(ttl):
            await self._repository.acheck_visitor(self._copy.id, self._copy.visitor)
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
        load = repository.peek if copy.is_read_only else repository.load
        record = load(copy.id)
        refuse_others(record, copy.visitor)
        copy.load(record)

    @alters_data
    async def areload(self) -> None:
        """See `reload`."""
        copy, repository = self._copy, self._repository
        load = repository.apeek if copy.is_read_only else repository.aload
        record = await load(copy.id)
        refuse_others(record, copy.visitor)
        copy.load(record)

    @alters_data
    def claim(self, owner: ids.Owner) -> None:
        """Make it `owner`'s, a string's or a user's. If it is stored, that is saved at once, with
        all else that changed.

        Raises as `save` does, above all:
            ConversationConflict: it is another owner's.
            InvalidConversationValue: that cannot be an owner.
            BackendUnavailable: its owner is not known here.
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
        One that was never stored keeps its id, and so does one that a login in this request is to
        claim, because its old token opens it no more then.

        Raises as `save` does, and:
            ConversationNotFound: it was deleted, has expired, or has become another owner's.
            BackendUnavailable: it is where it was or, if only the answer was lost, under an id that
                no caller knows.
        """
        self._copy.check_writable()
        self.save()
        if self._copy.is_stored and not self._copy.is_claimable:
            self._repository.check_visitor(self._copy.id, self._copy.visitor)
            self._copy.id = rename(self._repository, self._copy.id)

    @alters_data
    async def acycle_id(self) -> None:
        """See `cycle_id`."""
        self._copy.check_writable()
        await self.asave()
        if self._copy.is_stored and not self._copy.is_claimable:
            await self._repository.acheck_visitor(self._copy.id, self._copy.visitor)
            self._copy.id = await arename(self._repository, self._copy.id)


def working_copy_of(conversation: Conversation) -> WorkingCopy:
    """Return what is in memory of a conversation, for the middleware and the consumers."""
    return conversation._copy


def _moment(seconds: float) -> datetime | None:
    return moment_or_never(seconds) if seconds else None
