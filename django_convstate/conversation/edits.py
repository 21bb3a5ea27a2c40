"""What was made of messages that were updated or redacted, by their ids. No I/O."""

from collections.abc import Iterable, Mapping

from ..backends.records import Change, Committed, Replacement

Replaced = dict[str, tuple[bytes | None, bytes]]


class Edits:
    """Of each message the bytes that the store has, as far as is known, and those that it has now.
    The first are None where it is replaced whatever they are."""

    __slots__ = ("_current", "_remade", "_replaced")

    def __init__(self, replaced: Replaced | None = None, remade: Replaced | None = None) -> None:
        self._replaced: Replaced = {} if replaced is None else replaced
        # What was made of appended messages that may be there already, and then are not appended:
        # the bytes that they were appended with, and those now.
        self._remade: Replaced = {} if remade is None else remade
        # What was replaced since the load, and saved or staged.
        self._current: dict[str, bytes] = {}

    @property
    def are_modified(self) -> bool:
        """Whether there is something to save."""
        return bool(self._replaced)

    def applied_to(self, id: str, data: bytes) -> bytes:
        """Return the bytes of a message that is stored with `data`."""
        return self._replaced[id][1] if id in self._replaced else self._current.get(id, data)

    def shown(self) -> dict[str, bytes]:
        """Return what all of them have become."""
        shown = self._current.copy()
        shown.update((id, new) for id, (_, new) in self._replaced.items())
        return shown

    def replace(self, id: str, old: bytes | None, new: bytes) -> None:
        """Replace a message that is stored. `old` are the bytes that were seen just now."""
        if old is not None and id in self._replaced:
            old = self._replaced[id][0]
        self._replaced[id] = old, new

    def remake(self, id: str, old: bytes | None, new: bytes) -> None:
        """Replace one that is appended, and may be there already."""
        if old is not None and id in self._remade:
            old = self._remade[id][0]
        self._remade[id] = old, new

    def forget_shown(self, id: str) -> None:
        """Forget what became of a message that is not there any more."""
        self._current.pop(id, None)

    def forget(self, ids: Iterable[str]) -> None:
        """Forget what became, and was to become, of stored messages that are dropped."""
        for id in ids:
            self._replaced.pop(id, None)
            self._current.pop(id, None)

    def forget_stored(self) -> None:
        """Forget it of all that are stored."""
        self._replaced, self._current = {}, {}

    def forget_appended(self, ids: Iterable[str]) -> None:
        """Forget it of messages that are not to be appended any more."""
        for id in ids:
            self._remade.pop(id, None)

    def discard(self) -> None:
        """Forget what was to be saved."""
        self._replaced, self._remade = {}, {}

    def unsaved(self) -> "Edits":
        """Return what is to be saved, for what was loaded since."""
        return Edits(self._replaced, self._remade)

    def collect_changes(self) -> list[Replacement]:
        """Return what is to be replaced, and regard it as stored from now on."""
        replaced, self._replaced = self._replaced, {}
        self._current.update((id, new) for id, (_, new) in replaced.items())
        return [Replacement(id=id, old=old, new=new) for id, (old, new) in replaced.items()]

    def take_remade(self, change: Change, committed: Committed) -> list[Replacement]:
        """Return what is to be replaced, because a change did not append it: it was there."""
        found = [(id, self._remade.pop(id)) for id in change.once if id in self._remade]
        return [
            Replacement(id=id, old=old, new=new)
            for id, (old, new) in found
            if committed.repeated or id in committed.existing
        ]

    def adopt(self, replaced: Mapping[str, bytes]) -> None:
        """Take note of what became of messages that others have changed, too."""
        self._current.update(replaced)
