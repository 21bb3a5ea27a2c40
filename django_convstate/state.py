"""The dictionary half of a conversation: a plain mapping that knows what has changed in it."""

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Final

from .backends.base import COUNTER_MAX, COUNTER_MIN
from .codec import JSON, decode, encode, path_of
from .exceptions import (
    ConversationTooLarge,
    InvalidConversationType,
    InvalidConversationValue,
)

if TYPE_CHECKING:
    from .store import ConversationStore

_IMMUTABLE: Final = (str, int, float, bool, type(None))


class State(MutableMapping[str, JSON]):
    """State values by key, decoded when they are asked for.

    A list or dict that was handed out may be changed by whoever has it, without a word. So those,
    and only those, are encoded again to see whether they differ from what is stored.
    """

    __slots__ = ("_counted", "_encoded", "_size", "_store", "_stored", "_values")

    def __init__(self, store: "ConversationStore") -> None:
        self._store = store
        self.take_stored({})

    def take_stored(self, stored: dict[str, bytes]) -> None:
        """Begin with what the store holds, and forget everything else."""
        self._stored = stored  # what the store holds, as far as we know
        self._encoded = stored.copy()  # the same with what was assigned, counted and deleted since
        self._values: dict[str, JSON] = {}  # what was handed out or assigned
        self._counted: dict[str, int] = {}  # what was added since the last commit
        self._size: int | None = None  # of `_encoded`, in bytes; None: nobody has asked yet

    def __getitem__(self, key: str) -> JSON:
        if key in self._values:
            return self._values[key]
        self._values[key] = value = decode(self._encoded[key])
        return value

    def __setitem__(self, key: str, value: JSON) -> None:
        key = _plain_key(key)
        self._put(key, encode(value, "state", key))
        self._values[key] = value
        self._counted.pop(key, None)

    def __delitem__(self, key: str) -> None:
        data = self._encoded.pop(key)
        if self._size is not None:
            self._size -= len(key.encode()) + len(data)
        self._values.pop(key, None)
        self._counted.pop(key, None)

    def __contains__(self, key: object) -> bool:
        return key in self._encoded

    def __iter__(self) -> Iterator[str]:
        return iter(self._encoded)

    def __len__(self) -> int:
        return len(self._encoded)

    def __repr__(self) -> str:
        return f"<State: {len(self)} keys>"

    def incr(self, key: str, delta: int) -> int:
        """Add `delta` to a counter (one that is not there is 0). Return the sum as known here."""
        key = _plain_key(key)
        current, path = self.get(key, 0), path_of("state", key)
        for what, number in ((path, current), ("delta", delta)):
            if isinstance(number, bool) or not isinstance(number, int):
                raise InvalidConversationType(
                    f"{what} is of type {type(number).__name__}; only integers can be counted."
                )
        total = current + delta
        if not COUNTER_MIN <= total <= COUNTER_MAX:
            raise InvalidConversationValue(f"{path} would leave the signed 64-bit range.")
        # A number assigned or deleted since the last commit is not the one that is stored, so what
        # is added goes into what is set.
        counts = key in self._counted or self._encoded.get(key) == self._stored.get(key)
        self._put(key, b"%d" % total)
        self._values[key] = total
        if counts:
            self._counted[key] = self._counted.get(key, 0) + delta
        return int(total)

    @property
    def is_modified(self) -> bool:
        return bool(
            self._counted or self._stored.keys() - self._encoded.keys() or self._differing()
        )

    def take_changes(self) -> tuple[dict[str, bytes], list[str], dict[str, int]]:
        """Return what to set, to unset and to add, and regard it as stored from now on.

        Raises:
            InvalidConversationValue, ConversationTooLarge: something was put into a value that was
                handed out. Nothing is regarded as stored then.
        """
        changed, counted = self._differing(), self._counted
        for key, data in changed.items():
            self._put(key, data)
        unset = [key for key in self._stored if key not in self._encoded]
        self._stored, self._counted = self._encoded.copy(), {}
        return changed, unset, counted

    def _differing(self) -> dict[str, bytes]:
        """Return the keys whose encoding is not the stored one, with the encoding."""
        now = self._encoded.copy()
        for key, value in self._values.items():
            if type(value) not in _IMMUTABLE:
                now[key] = encode(value, "state", key)
        return {
            key: data
            for key, data in now.items()
            if data != self._stored.get(key) and key not in self._counted
        }

    def _put(self, key: str, data: bytes) -> None:
        if self._size is None:
            self._size = sum(len(k.encode()) + len(v) for k, v in self._encoded.items())
        known = self._encoded.get(key)
        before = 0 if known is None else len(key.encode()) + len(known)
        size = self._size - before + len(key.encode()) + len(data)
        limit = self._store.options.max_state_bytes
        if size > limit and size > self._size:
            raise ConversationTooLarge(
                f"The state would take {size} bytes as JSON; MAX_STATE_BYTES is {limit}."
            )
        self._size = size
        self._encoded[key] = data


def _plain_key(key: str) -> str:
    if not isinstance(key, str):
        raise InvalidConversationType(
            f"A state key is a string, not {type(key).__name__} ({key!r:.40})."
        )
    encode(key, "A state key")
    return str.__str__(key)  # not an enum's member that happens to be a string
