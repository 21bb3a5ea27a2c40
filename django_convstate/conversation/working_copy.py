"""What is in memory of a conversation: what was loaded, what has changed since, what waits to be
saved. No I/O: a Record comes in, Changes go out."""

import math
from collections.abc import Callable, Sequence

from .. import clock
from ..backends.records import Change, Committed, Create, Record
from ..backends.refusals import only_peeked, owned_by_another, unknown_here
from ..backends.toolkit.writer import ThisProcess
from ..conf import Options
from ..exceptions import ConversationInterrupted
from ..ids import new_id
from .arguments import check_version
from .memory_lock import MemoryLock
from .message_log import MessageLog
from .pending import NOTHING, Pending
from .state import State


class WorkingCopy:
    """A conversation between its load and its save. Times are seconds since the epoch; 0.0: never.

    `create` says whether the next commit may, must or must not find something stored, and
    `unless_deleted` that it may not begin anew what was deleted. `save_failed` says whether the
    last save raised: then the view has to answer for it, and not the middleware. `is_read_only`
    says that it was peeked at, and is not to be saved. `unconfirmed` says that the store may not
    have it yet, or not any more because of an outage.
    """

    # There are more of them than dictionaries of instances share their keys for, so that without
    # slots each access would take longer, and each object more memory.
    __slots__ = (
        *("_acknowledged", "_has_given_up", "_kept", "_lease", "_options", "before_save", "create"),
        *("created_at", "degraded", "existing", "expires_at", "has_news", "id", "is_claimable"),
        *("is_read_only", "last_accessed", "lock", "log", "modified_at", "new_ttl", "owner"),
        *("owner_is_attested", "pending", "refusals", "save_failed", "state", "ttl"),
        *("unconfirmed", "unless_deleted", "version", "visitor", "window"),
    )

    def __init__(self, options: Options) -> None:
        """Prepare for `begin` or `load`, one of which has to follow."""
        self._options = options
        self.lock = MemoryLock()
        self.refusals = self._acknowledged = 0  # how many changes, and up to which commit
        self._lease: tuple[str, str] | None = None  # of which conversation, and the token
        self._has_given_up = False  # the lease, with what is staged
        self.save_failed = self.is_read_only = self.unless_deleted = False
        # By a login in this request it may be claimed for its visitor, as it is by what is saved
        # next. Its former token opens it no more then, so it needs no new id.
        self.is_claimable = False
        # When the conversation is saved, it must have this owner or none; "": it must have none;
        # None: the owner is not checked.
        self.visitor: str | None = None
        # Whether a token, or a login, says that it may be the visitor's, where in an outage nothing
        # is known of it.
        self.owner_is_attested = False
        # Called with this before it is saved, and may refuse that.
        self.before_save: Callable[[WorkingCopy], None] | None = None
        # Whether messages were saved of which open websockets were not told, and after which
        # position those that they have are gone; None: they are all there.
        self.has_news = False
        self._kept: int | None = None
        self.window = options.window  # how many messages of others a commit returns at most
        self.existing: Sequence[str] = ()  # the ids that the last commit found there already
        # The same for good, because another thread may wait for the lock in one of their methods.
        self.log, self.state = MessageLog(options, self.lock), State(options, self.lock)

    def begin(
        self,
        id: str,
        *,
        owner: str | None = None,
        ttl: float | None = None,
        create: Create = Create.MUST_BE_NEW,
        unless_deleted: bool = False,
    ) -> None:
        """Become an empty conversation that is not stored yet."""
        with self.lock.held:
            self.id = id
            self.version = 0
            self.owner = owner
            self.ttl = self._options.ttl if ttl is None else ttl
            self.new_ttl: float | None = None
            self.degraded, self.unconfirmed = False, True
            self.created_at = self.modified_at = self.last_accessed = self.expires_at = 0.0
            self.create = create
            self.unless_deleted = unless_deleted
            self.state.reset_to({})
            self.log.reset_to(None)
            self.pending = Pending()

    def begin_anew(self) -> None:
        """Become an empty conversation of the same visitor, under a new id."""
        self.begin(new_id(), owner=self.visitor or None)

    def load(self, record: Record) -> None:
        """Become what the store holds. What was not saved is forgotten."""
        with self.lock.held:
            self.id = record.id
            self.version = record.version
            is_unknown = record.degraded and record.is_unknown
            if not (self.owner_is_attested and is_unknown):
                self.owner = record.owner
            # One of which not even that is known has what is configured, if it is begun anew.
            is_blank = is_unknown and record.ttl == math.inf
            self.ttl = self._options.ttl if is_blank else record.ttl
            self.new_ttl = None
            self.degraded, self.unconfirmed = record.degraded, record.unconfirmed
            self.created_at, self.modified_at = record.created_at, record.modified_at
            self.last_accessed = record.last_accessed
            self.expires_at = self._expiry() if is_unknown else record.expires_at
            # Loaded blind in an outage: the conversation may or may not exist, or have been
            # deleted, so the commit must accept each. The store may be back before this is saved.
            self.unless_deleted = is_unknown
            self.create = Create.EITHER if is_unknown else Create.MUST_EXIST
            self.save_failed = False
            self.state.reset_to(record.state)
            self.log.reset_to(record)
            self.pending = Pending()

    @property
    def is_stored(self) -> bool:
        """Whether the store has it; or, in an outage, may have it."""
        return self.create is Create.MUST_EXIST or self.degraded

    @property
    def is_unknown(self) -> bool:
        """Whether, in an outage, nothing is known here of what is stored."""
        return self.degraded and not self.version

    @property
    def is_new(self) -> bool:
        """Whether it has never been stored, as far as is known."""
        return self.version == 0 and not self.degraded

    @property
    def is_modified(self) -> bool:
        """Whether there is something to save."""
        return bool(
            self.pending
            or self.new_ttl is not None
            or self.state.is_modified
            or self.log.is_modified
        )

    # Saving: stage, send each of `pending`, acknowledge.

    def stage(
        self, expected_version: int | None = None, owner: str | None = None, releases: bool = False
    ) -> int:
        """Make a Change of what has changed, and regard it as stored from now on. `releases`: it
        gives up the lease.

        Returns:
            How many `refusals` there were: if there are more when all is sent, it was refused.

        Raises:
            InvalidConversationType: the expected version is no integer.
            BackendUnavailable: there is one, and it is not known here what is stored.
            InvalidConversationValue, ConversationTooLarge: something bad was put into a nested
                value. Nothing is staged then.
            ImproperlyConfigured: the request's user is another by now. Nothing is staged.
        """
        if self.is_read_only and self.is_modified:
            self.check_writable()
        self.save_failed = True
        if self.before_save is not None:
            self.before_save(self)
        with self.lock.held:
            if expected_version is not None:
                self.check_known()
                expected_version = self._expected(expected_version)
            options = self._options
            # Then another thread saves, or a receiver, and no turn is to be lost with it.
            is_after_turn = self._has_given_up
            self._has_given_up |= releases
            changed, unset, counted, expected = self.state.collect_changes()
            keep, appended, once, replaced, seen, end = self.log.collect_changes()
            if not (
                changed
                or unset
                or counted
                or appended is not NOTHING
                or replaced
                or keep is not None
                or owner is not None
                or self.new_ttl is not None
            ):
                return self.refusals
            is_new = self.create is Create.MUST_BE_NEW
            if self.is_claimable and self.owner is None:
                owner = owner or self.visitor
            elif not self.version:  # one that was seen in the store has its owner there
                owner = owner or self.owner
            change = Change(
                create=self.create,
                unless_deleted=self.unless_deleted,
                expected_version=expected_version,
                visitor=self.visitor,
                owner=owner,
                owner_is_attested=self.is_claimable or self.owner_is_attested,
                ttl=self.ttl if is_new else self.new_ttl,  # one that may be there keeps its own
                default_ttl=self.ttl,
                expected=expected,
                set=changed,
                unset=unset,
                increment=counted,
                max_state_bytes=options.max_state_bytes,
                replace=replaced,
                keep_messages=keep,
                append=appended,
                once=once,
                max_messages=options.max_messages,
                drop_oldest=options.when_full == "drop_oldest",
                commit=ThisProcess.writer.begin(self.id),
                lease=None if self._lease is None or is_after_turn else self.lease,
                release=releases,
                seen=seen,
                window=self.window,
            )
            self.pending.append((change, end))
            self.create = Create.MUST_EXIST
            self.new_ttl = None
            return self.refusals

    def check_writable(self) -> None:
        """Raise `ConversationConflict` for one that was only peeked at."""
        if self.is_read_only:
            raise only_peeked()

    def check_known(self) -> None:
        """Raise `BackendUnavailable` for one of which, in an outage, nothing is known here."""
        if self.is_unknown:
            raise unknown_here()

    def refuse(self, change: Change) -> None:
        """Take note that the store has refused a change, and with it all that wait."""
        with self.lock.held:
            if not self.pending.is_first(change):
                return  # another thread or task has sent it as well, and was faster
            self.refusals += 1
            self.pending.clear()
            # What was to be new is not the one that is there.
            self.create = change.create

    def _expected(self, version: int) -> int:
        check_version(version)
        if not self.pending:
            return version
        # What has waited since an outage was to be checked against the same version, and makes a
        # new one.
        self.pending.expect(version)
        return version + len(self.pending)

    def acknowledge(self, change: Change, committed: Committed) -> bool | None:
        """Take note that the store has applied a change, and tell whether it has begun the
        conversation. None: another thread or task has sent it as well, and was faster."""
        with self.lock.held:
            has_created = change.create is Create.MUST_BE_NEW or (
                change.create is Create.EITHER and committed.version == 1
            )
            taken = self.pending.take(change)
            if taken is None:  # or it was forgotten here, by a reload
                return None if change.commit.number <= self._acknowledged else has_created
            self._acknowledged = max(self._acknowledged, change.commit.number)
            expected_end, others_wait = taken
            if others_wait or not self.log.settle_if_expected(committed, expected_end):
                self.log.settle(self.pending.settle(change, committed, expected_end))
            self.existing = committed.existing
            if change.once and (replacements := self.log.remade(change, committed)):
                self.log.adopt({each.id: each.new for each in replacements})
                commit, lease = ThisProcess.writer.begin(self.id), self.lease
                self.pending.add_follower(change, committed, replacements, commit, lease)
            if committed.replaced:
                self.log.adopt(committed.replaced)
            if committed.merged:
                self.state.note_merged(committed.merged)
            keep = change.keep_messages
            self.has_news |= keep is not None or change.append is not NOTHING
            if keep is not None:
                self._kept = keep if self._kept is None else min(keep, self._kept)
            self.version = committed.version
            self.degraded, self.unconfirmed = committed.degraded, committed.unconfirmed
            self.owner = change.owner or self.owner
            self.last_accessed = self.modified_at = clock.time()
            self.expires_at = committed.expires_at
            self.created_at = self.created_at or self.last_accessed
            return has_created

    def take_news(self) -> tuple[int, int | None]:
        """Return where the messages end, and after which position others have to read them anew."""
        with self.lock.held:
            kept, self._kept, self.has_news = self._kept, None, False
            return self.log.end, kept

    def set_ttl(self, ttl: float) -> None:
        """Grant another idle time, in seconds, with the next save."""
        with self.lock.held:
            self.ttl, self.new_ttl = ttl, None if self.create is Create.MUST_BE_NEW else ttl

    def touched(self, was_there: bool, ttl: float | None) -> None:
        """Take note that the expiry was slid, with a new idle time in seconds if given.

        Raises:
            ConversationInterrupted: there was nothing to slide.
        """
        if not was_there:
            if self.degraded:
                return  # another process may have accepted it in an outage, and not replayed it yet
            raise ConversationInterrupted("The conversation was deleted or has expired.")
        if ttl is not None:
            self.ttl, self.new_ttl = ttl, None
        self.last_accessed = clock.time()
        self.expires_at = self._expiry()

    def _expiry(self) -> float:
        idle, max_age = self.last_accessed + self.ttl, self._options.max_age
        return idle if max_age is None else min(idle, self.created_at + max_age)

    def present_to(self, owner: str | None, *, is_attested: bool = False) -> None:
        """Be opened by a visitor; None: an anonymous one. If a token, or their login, attests that
        it may be theirs, it becomes theirs with what is saved next."""
        self.visitor = owner or ""
        if is_attested:
            self.owner_is_attested = True
            if self.is_unknown:
                self.owner = owner
            else:
                self.is_claimable = True

    def claim(self, owner: str) -> bool:
        """Become `owner`'s, and tell whether that has to be saved.

        Raises:
            ConversationConflict: it is another owner's.
            BackendUnavailable: its owner is not known here.
        """
        if self.owner != owner:
            self.check_known()
        if self.owner not in (None, owner):
            raise owned_by_another()
        if self.visitor is not None:
            self.visitor = owner
        if self.owner == owner:
            return False
        if self.is_stored:
            self.stage(owner=owner)
        else:
            self.owner = owner
        return self.is_stored

    def discard_changes(self) -> None:
        """Go back to what the store holds, as far as is known."""
        with self.lock.held:
            self.pending.clear()
            self.state.discard_changes()
            self.log.discard_changes()

    # A turn.

    @property
    def lease(self) -> str | None:
        """The token of the turn under way; None: there is none, or it is another conversation's."""
        return self._lease[1] if self._lease is not None and self._lease[0] == self.id else None

    def enter_turn(self, lease: str) -> None:
        """Have what is staged from now on carry the lease.

        Raises:
            RuntimeError: there is a turn under way.
        """
        with self.lock.held:
            if self._lease is not None:
                raise RuntimeError("This conversation is in a turn already; they cannot be nested.")
            self._lease = self.id, lease

    def stage_last(self, lease: str) -> tuple[int, bool]:
        """Stage what has changed, and tell as well whether sending it gives up the lease."""
        with self.lock.held:  # what another thread stages meanwhile needs the lease as well
            refusals = self.stage(releases=True)
            return refusals, self.pending.release(lease)

    def note_unsaved(self) -> None:
        """Take note that an interrupted turn could not be saved. That is not the view's to answer,
        and what the store may not have received is sent once more at the end of the request."""
        self.save_failed = False
        if not self.pending:
            self.discard_changes()

    def leave_turn(self) -> None:
        """Have what is staged from now on carry no lease."""
        self._lease, self._has_given_up = None, False
