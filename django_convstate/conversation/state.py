"""The dictionary half of a conversation: a plain mapping that knows what has changed in it."""

from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Final

from ..backends.records import entry_size
from ..backends.refusals import COUNTER_MAX, COUNTER_MIN
from ..codec import JSON, decode, encode, path_of
from ..conf import Options
from ..exceptions import ConversationTooLarge, InvalidConversationType, InvalidConversationValue
from .memory_lock import MemoryLock
from .merge import merged_bytes

_IMMUTABLE: Final = (str, int, float, bool, type(None))
# Of a Conversation, which are taken for keys of its state.
_ATTRIBUTES: Final = frozenset(
    (
        *("id", "token", "owner", "version", "ttl", "messages", "created_at", "modified_at"),
        *("last_accessed", "expires_at", "is_new", "is_modified", "degraded"),
    )
)


class State(MutableMapping[str, JSON]):
    """State values by key, decoded when they are asked for.

    A list or dict that was handed out may be changed by its holder without our notice. So those,
    and only those, are encoded again to see whether they differ from what is stored.

    Threads may read and write at the same time. What a WorkingCopy calls to save is called with its
    lock held.
    """

    __slots__ = (
        *("_approximate", "_assigned", "_counted", "_encoded", "_lock", "_options", "_size"),
        *("_stored", "_values"),
    )

    def __init__(self, options: Options, lock: MemoryLock) -> None:
        """Prepare for `reset_to`, which has to follow."""
        self._lock = lock
        self._options = options

    def reset_to(self, stored: dict[str, bytes]) -> None:
        """Hold what the store holds, and nothing else."""
        self._stored = stored  # what the store holds, as far as is known
        self._encoded = stored.copy()  # the same with what was assigned, counted and deleted since
        self._values: dict[str, JSON] = {}  # what was handed out or assigned
        self._counted: dict[str, int] = {}  # what was added since the last commit
        # Counters that we have added to, and values that were merged with others' changes. What is
        # stored of them is known only roughly, and what is assigned is sent even if it looks the
        # same.
        self._approximate: frozenset[str] = frozenset()
        # What was assigned since the last commit replaces what is stored; what was only changed
        # inside is merged with what others have changed inside.
        self._assigned: dict[str, None] = {}  # a set takes more memory
        self._size: int | None = None  # of `_encoded`, in bytes; None: not computed yet

    def discard_changes(self) -> None:
        """Go back to what the store holds, as far as is known."""
        self._encoded = self._stored.copy()
        self._values, self._counted, self._assigned = {}, {}, {}
        self._size = None

    def __getitem__(self, key: str) -> JSON:
        with self._lock.held:  # all threads have to be handed out the same list or dictionary
            if key in self._values:
                return self._values[key]
            try:
                data = self._encoded[key]
            except KeyError:
                raise _no_such_key(key) from None
            self._values[key] = value = decode(data)
            return value

    def __setitem__(self, key: str, value: JSON) -> None:
        with self._lock.held:
            key = _plain_key(key)
            self._put(key, encode(value, "state", key))
            self._values[key] = value
            self._assigned[key] = None
            self._counted.pop(key, None)

    def setdefault(self, key: str, default: JSON = None) -> JSON:
        """Return the value of a key, which is `default` if there is none. A list or a dictionary
        that others begin at the same time is merged with it."""
        with self._lock.held:
            if key not in self:
                self[key] = default
                if isinstance(default, (list, dict)) and key not in self._stored:
                    self._assigned.pop(key, None)
            return self[key]

    def __delitem__(self, key: str) -> None:
        with self._lock.held:
            data = self._encoded.pop(key)
            if self._size is not None:
                self._size -= entry_size(key, data)
            self._values.pop(key, None)
            self._counted.pop(key, None)

    def pop(self, key: str, *default: JSON) -> JSON:
        """See `dict.pop`. Of several threads, one gets the value."""
        with self._lock.held:
            return super().pop(key, *default)

    def popitem(self) -> tuple[str, JSON]:
        """See `dict.popitem`."""
        with self._lock.held:
            return super().popitem()

    def clear(self) -> None:
        """Drop all keys."""
        with self._lock.held:
            super().clear()

    def __contains__(self, key: object) -> bool:
        return key in self._encoded

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._encoded))  # which another thread may change meanwhile

    def __len__(self) -> int:
        return len(self._encoded)

    def __repr__(self) -> str:
        return f"<State: {len(self)} keys>"

    __sentry_repr__ = __repr__

    def incr(self, key: str, delta: int) -> int:
        """Add `delta` to a counter (one that is not there is 0). Return the sum as known here."""
        with self._lock.held:
            key = _plain_key(key)
            current, path = self.get(key, 0), path_of("state", key)
            for what, number in ((path, current), ("delta", delta)):
                if isinstance(number, bool) or not isinstance(number, int):
                    raise InvalidConversationType(
                        f"{what} is of type {type(number).__name__}; only integers can be counted."
                    )
            total = current + delta
            if not all(COUNTER_MIN <= each <= COUNTER_MAX for each in (current, delta, total)):
                raise InvalidConversationValue(f"{path} would leave the signed 64-bit range.")
            # A number assigned or deleted since the last commit is not the one that is stored, so
            # what is added becomes part of what is set.
            as_stored = (
                self._encoded.get(key) == self._stored.get(key) and key not in self._sent_anyway()
            )
            counts = key in self._counted or as_stored
            self._put(key, b"%d" % total)
            self._values[key] = total
            if counts:
                self._counted[key] = self._counted.get(key, 0) + delta
            return int(total)

    @property
    def is_modified(self) -> bool:
        """Whether there is something to save."""
        with self._lock.held:
            if self.is_untouched:
                return False
            now = self._encoded | self._nested()
            return bool(self._counted or self._stored.keys() - now.keys() or self._changed(now))

    def collect_changes(
        self,
    ) -> tuple[dict[str, bytes], list[str], dict[str, int], dict[str, bytes | None]]:
        """Return what to set, to unset and to add, and what nested changes began from. Regard it as
        stored from now on.

        Raises:
            InvalidConversationValue, ConversationTooLarge: something was put into a value that was
                handed out. Nothing is regarded as stored then.
        """
        if self.is_untouched:
            return {}, [], {}, {}
        encoded, stored, counted = self._encoded, self._stored, self._counted
        if nested := self._nested():
            now = encoded | nested
            if now != encoded:
                self._size = self._checked_size(_size_of(now))
                self._encoded = encoded = now
        changed = self._changed(encoded)
        unset = sorted(stored.keys() - encoded.keys())
        expected: dict[str, bytes | None] = {}
        for key in changed.keys() - self._assigned.keys():
            expected[key] = stored.get(key)
        if changed or unset or counted:
            self._stored = encoded.copy()
        if counted or self._approximate:
            self._approximate = (self._approximate | counted.keys()) - changed.keys()
        self._assigned, self._counted = {}, {}
        return changed, unset, counted, expected

    @property
    def is_untouched(self) -> bool:
        """Whether nothing of it was handed out, assigned or deleted since it was loaded."""
        return not (self._values or self._assigned) and len(self._encoded) == len(self._stored)

    def changes(self) -> "StateChanges":
        """Return what has changed, for `do_again`. Raises as `collect_changes` does."""
        values, before = self._values, self._stored
        return StateChanges(values, before, *self.collect_changes())

    def do_again(self, changes: "StateChanges") -> None:
        """Do what has changed to what was loaded since. Lists and dictionaries that were handed out
        and are stored as they were stay the same objects, which another thread may be changing."""
        for key, value in changes.values.items():
            if type(value) not in _IMMUTABLE and self._is_stored_as(changes.before.get(key), key):
                self._values[key] = value
        for key, mine in changes.changed.items():
            value, base = changes.values[key], changes.expected.get(key)
            if key not in changes.expected:
                self._assigned[key] = None
            elif not self._is_stored_as(base, key) and (theirs := self._stored.get(key)):
                mine = merged_bytes(base, mine, theirs, path_of("state", key))
                value = decode(mine)
            self._encoded[key], self._values[key] = mine, value
        for key in changes.unset:
            self._encoded.pop(key, None)
            self._values.pop(key, None)
        for key, delta in changes.counted.items():
            self.incr(key, delta)

    def _is_stored_as(self, data: bytes | None, key: str) -> bool:
        return self._stored.get(key) == data

    def note_merged(self, keys: Iterable[str]) -> None:
        """Take note that what is stored under these keys has others' changes in it, too."""
        self._approximate |= frozenset(keys)

    def _nested(self) -> dict[str, bytes]:
        """Return the lists and dictionaries that were handed out as they are now: they may have
        changed since."""
        nested = {}
        for key, value in self._values.items():  # on Python 3.11, faster than a comprehension
            if type(value) not in _IMMUTABLE:
                nested[key] = encode(value, "state", key)
        return nested

    def _changed(self, now: dict[str, bytes]) -> dict[str, bytes]:
        """Return those of the values to be stored that are set, and not counted."""
        stored, counted = self._stored, self._counted
        sent_anyway = self._sent_anyway() if self._approximate else ()
        changed = {}
        for key in self._values:  # what was neither handed out nor assigned is as it was
            if key not in counted and (now[key] != stored.get(key) or key in sent_anyway):
                changed[key] = now[key]
        return changed

    def _sent_anyway(self) -> set[str]:
        """Return the keys whose values are sent even if they look the same as what is stored."""
        return self._assigned.keys() & self._approximate

    def _put(self, key: str, data: bytes) -> None:
        if self._size is None:
            self._size = _size_of(self._encoded)
        before = self._encoded.get(key)
        added = entry_size(key, data) if before is None else len(data) - len(before)
        self._size = self._checked_size(self._size + added)
        self._encoded[key] = data

    def _checked_size(self, size: int) -> int:
        limit = self._options.max_state_bytes
        if size > limit and size > (self._size or 0):
            raise ConversationTooLarge(
                f"The state would take {size} bytes as JSON; MAX_STATE_BYTES is {limit}."
            )
        return size


@dataclass(frozen=True, slots=True, repr=False)
class StateChanges:
    """What has changed since the last commit, with the `values` that were handed out, and what was
    stored `before`."""

    values: dict[str, JSON]
    before: dict[str, bytes]
    changed: dict[str, bytes]
    unset: list[str]
    counted: dict[str, int]
    expected: dict[str, bytes | None]


def _no_such_key(key: object) -> KeyError:
    if key not in _ATTRIBUTES:
        return KeyError(key)
    return KeyError(
        f"{key!r} is no key of the state. What you mean is probably conversation.{key}: a "
        "conversation is a mapping of its state alone. For Django REST framework, which reads the "
        "fields of a mapping by key, see "
        "django_convstate.integrations.rest_framework.ConversationSerializer."
    )


def _size_of(encoded: dict[str, bytes]) -> int:
    return sum(map(len, map(str.encode, encoded))) + sum(map(len, encoded.values()))


def _plain_key(key: str) -> str:
    if type(key) is str and key.isascii():  # as it mostly is
        return key
    if not isinstance(key, str):
        raise InvalidConversationType(f"A state key is a string, not {type(key).__name__}.")
    encode(key, "A state key")
    return str.__str__(key)  # not an enum's member that happens to be a string
