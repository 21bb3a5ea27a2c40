"""What a store does with many conversations: it lists and purges them, and tells how it is.

A twin differs from its method by the await alone.
"""

import re
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from . import conf, ids
from .backends.reports import ConversationSummary, Finding, Health, Progress, PurgeReport, Selection
from .codec import encode
from .conversation.arguments import selected_owner
from .conversation.templating import alters_data
from .exceptions import InvalidConversationType, InvalidConversationValue
from .ids import Owner
from .observing import in_request
from .repository import Repository
from .tracebacks import clears_locals

MAX_BATCH_SIZE: Final = 100_000  # conversations
MAX_KEYS: Final = 100  # of the state, in one listing
_CURSOR: Final = re.compile(r"[0-9a-f]{28}([0-9a-f]{24})?")


@clears_locals
class StoreAdministration:
    """The methods of `ConversationStore` that concern many conversations."""

    _repository: Repository

    def list(
        self,
        owner: Owner = None,
        *,
        limit: int | None = None,
        after: str | None = None,
        keys: Sequence[str] = (),
    ) -> Iterator[ConversationSummary]:
        """Yield what is stored, newest saved first; on Redis pages are in order to a minute, and
        what is neither an owner's nor limited is in no order. Prolongs no conversation's life.

        Args:
            owner: a string or a user; None: with any owner or none. An anonymous user owns nothing.
            limit: how many at most.
            after: begin after the conversation whose summary had this `cursor`.
            keys: of the state; the summaries contain their values: a title, say.

        Raises:
            InvalidBackend: the backend cannot list.
            InvalidConversationValue: one of the arguments makes no sense.
        """
        _note_use()
        if _is_nobody(owner):
            return iter(())
        return clears_locals(self._repository.scan)(*_listing(owner, limit, after, keys))

    @alters_data
    def alist(
        self,
        owner: Owner = None,
        *,
        limit: int | None = None,
        after: str | None = None,
        keys: Sequence[str] = (),
    ) -> AsyncIterator[ConversationSummary]:
        """See `list`."""
        _note_use()
        if _is_nobody(owner):
            return _nothing()
        return clears_locals(self._repository.ascan)(*_listing(owner, limit, after, keys))

    @alters_data
    def purge(
        self,
        idle_for: float | None = None,
        owner: Owner = None,
        everything: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
        batch_size: int = 500,
    ) -> PurgeReport:
        """Delete what has expired; or what was idle for `idle_for` seconds, belongs to `owner`, or
        both; or everything. In a dry run, only count it.

        Raises:
            InvalidConversationValue: a selection that makes no sense.
            InvalidBackend: the backend cannot find them.
        """
        selection = _selection(idle_for, owner, everything)
        _check_batch_size(batch_size)
        return self._repository.purge(
            selection, dry_run=dry_run, batch_size=batch_size, progress=progress
        )

    @alters_data
    async def apurge(
        self,
        idle_for: float | None = None,
        owner: Owner = None,
        everything: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
        batch_size: int = 500,
    ) -> PurgeReport:
        """See `purge`."""
        selection = _selection(idle_for, owner, everything)
        _check_batch_size(batch_size)
        return await self._repository.apurge(
            selection, dry_run=dry_run, batch_size=batch_size, progress=progress
        )

    @alters_data
    def find_damage(self, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield what is damaged or in part missing, what has lost its conversation, what does not
        expire, and what is in quarantine. Changes and prolongs nothing; reads everything, so it is
        for an operator and not for a request, and has no twin.

        Raises:
            InvalidBackend: the backend cannot.
        """
        return clears_locals(self._repository.find_damage)(progress)

    def health(self) -> Health:
        """Make a round trip to the backend and tell how it is. An outage is no error here."""
        return self._repository.health()

    @alters_data
    async def ahealth(self) -> Health:
        """See `health`."""
        return await self._repository.ahealth()

    @alters_data
    def close(self) -> None:
        """Let go of connections; the next use makes new ones."""
        self._repository.close()

    @alters_data
    async def aclose(self) -> None:
        """See `close`."""
        await self._repository.aclose()


def repository_of(store: StoreAdministration) -> Repository:
    """Return what a store calls its backend by: for modules of this package that need more than it
    offers."""
    return store._repository


def _note_use() -> None:
    if (note_use := in_request.get()) is not None:
        note_use()


def _is_nobody(owner: Owner) -> bool:
    """Tell whether an owner is a user who is not logged in."""
    return owner is not None and ids.owner_of(owner) is None


def _listing(
    owner: Owner, limit: int | None, after: str | None, keys: Sequence[str]
) -> tuple[str | None, int | None, str | None, Sequence[str]]:
    if limit is not None and (type(limit) is not int or limit < 1):
        raise InvalidConversationValue("limit must be a whole number of at least 1.")
    if after is not None and not (isinstance(after, str) and _CURSOR.fullmatch(after)):
        raise InvalidConversationValue("after must be the cursor of a summary.")
    if not isinstance(keys, list | tuple) or not all(isinstance(key, str) for key in keys):
        raise InvalidConversationType("keys must be a list of keys of the state.")
    if len(keys) > MAX_KEYS:
        raise InvalidConversationValue(f"keys must be at most {MAX_KEYS} keys of the state.")
    for key in keys:
        encode(key, "A state key")
    most = None if limit is None else min(limit, sys.maxsize)  # more is more than Python counts
    return ids.owner_of(owner), most, after, keys


async def _nothing() -> AsyncIterator[ConversationSummary]:
    for summary in list[ConversationSummary]():
        yield summary


def _selection(idle_for: float | None, owner: Owner, everything: bool) -> Selection:
    if idle_for is not None and (problem := conf.seconds(idle_for)):
        raise InvalidConversationValue(f"idle_for {problem}.")
    owned = selected_owner(owner)
    if everything and not (idle_for is None and owner is None):
        raise InvalidConversationValue("everything does not go with idle_for or owner.")
    return Selection(idle_for=idle_for, owner=owned, everything=bool(everything))


def _check_batch_size(batch_size: int) -> None:
    if type(batch_size) is not int or not 1 <= batch_size <= MAX_BATCH_SIZE:
        raise InvalidConversationValue(
            f"batch_size must be a whole number from 1 to {MAX_BATCH_SIZE:,}."
        )
