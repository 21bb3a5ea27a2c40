"""The conversations of an owner, newest saved first. A page takes two round trips: for ids from the
owner's index, and for what is told of them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from operator import attrgetter
from typing import Final

from ...exceptions import BackendUnavailable
from ..reports import ConversationSummary
from ..toolkit.listing import newest_first
from .batches import BATCH_SIZE, Batches, batches
from .command import milliseconds
from .operations import Operations
from .owner_index import PAGE, IndexPage, Place, ids_of

SUMMARIES: Final = 1000  # conversations that are asked for in one go: a page, and what it overlaps

_cursor = attrgetter("cursor")


class OwnedConversations:
    """Lists the conversations of owners."""

    def __init__(self, operations: Operations, batches: Batches) -> None:
        self._operations = operations
        self._index = operations.index
        self._batches = batches

    def newest_first(
        self, owner: str, limit: int | None, after: str | None, keys: Sequence[str]
    ) -> Iterator[ConversationSummary]:
        """Yield at most `limit` of those that follow `after`. The order is exact within a block
        (see `Place`), and without a limit; else to a minute."""
        place, count = Place.after(after), min(limit or PAGE, PAGE)
        page = self._page(owner, place, count, checks=True)
        if page.strays:
            if not self._add_strays(owner, page.strays):
                return newest_first(self._in_no_order(owner, keys), limit, after)
            page = self._page(owner, place, count)
        if limit is None:
            page = self._joined(owner, page)
        blocks = self._blocks(owner, place, page, count, keys)
        return islice(chain.from_iterable(map(_in_order, blocks)), limit)

    def ids(self, owner: str) -> list[str]:
        """Return the ids in an owner's index. All at once, and not as they are asked for: it
        shrinks while they are deleted."""
        ids: dict[str, None] = {}
        for key in self._index.keys(owner):  # either may have been evicted
            cursor: int | None = 0
            while cursor is not None:
                cursor, page = self._batches.one(self._index.scan(key, cursor)) or (None, [])
                ids |= dict.fromkeys(page)
        return list(ids)

    def forget(self, owner: str, ids: Sequence[str | bytes]) -> None:
        """Remove ids from an owner's index. A conversation that is begun again meanwhile stays in
        it. Where writes are refused listing goes on; what is left over is found again."""
        with suppress(BackendUnavailable):
            for batch in batches(iter(ids), BATCH_SIZE):
                self._batches.one(self._index.forget(owner, batch))
                self._add_if_there(owner, [id for id in batch if isinstance(id, str)])

    def _add_if_there(self, owner: str, ids: Sequence[str]) -> None:
        if not ids:
            return
        found = self._batches.run({id: self._operations.summary(id) for id in ids})
        there = [each for each in found.values() if each is not None and each.owner == owner]
        if there:
            self._batches.one(self._index.add(owner, map(_entry, there)))

    def _page(self, owner: str, place: Place, count: int, *, checks: bool = False) -> IndexPage:
        operation = self._index.page(owner, place, count, checks=checks)
        return self._batches.one(operation) or IndexPage()

    def _joined(self, owner: str, page: IndexPage) -> IndexPage:
        """Return a page with all that follows it, as one block."""
        ids, low = list(page.block), page.low
        while low:
            following = self._page(owner, Place(low, low), PAGE)
            ids += following.block
            low = following.low
        return replace(page, block=ids, low=0)

    def _blocks(
        self, owner: str, place: Place, page: IndexPage, count: int, keys: Sequence[str]
    ) -> Iterator[list[ConversationSummary]]:
        """Yield the rest of the block at a place, and the blocks below it."""
        while True:
            place = replace(place, low=page.below)
            block = dict.fromkeys(page.block, Place(page.low, page.below).bounds)
            rest = dict.fromkeys(page.rest, place.bounds)
            found = self._summaries(owner, rest | block, keys)
            yield [found[id] for id in rest if id in found and found[id].cursor < place.cursor]
            yield [found[id] for id in block if id in found]
            if page.low == 0:
                return
            place = Place(page.low, page.low)
            page = self._page(owner, place, count)

    def _summaries(
        self, owner: str, bounds: Mapping[str, str], keys: Sequence[str]
    ) -> dict[str, ConversationSummary]:
        """Return what is told of an owner's conversations, with the bounds that each is given, and
        remove from the index those that are not there any more."""
        owned = {}
        for batch in batches(iter(bounds), SUMMARIES):
            found = self._batches.run(
                {id: self._operations.summary(id, keys, bounds[id]) for id in batch}
            )
            gone = []
            for id, summary in found.items():
                if summary is not None and summary.owner == owner:
                    owned[id] = summary
                else:
                    gone.append(id)
            self.forget(owner, gone)
        return owned

    def _in_no_order(self, owner: str, keys: Sequence[str]) -> Iterator[ConversationSummary]:
        return iter(self._summaries(owner, dict.fromkeys(self.ids(owner), ""), keys).values())

    def _add_strays(self, owner: str, members: Sequence[bytes]) -> bool:
        """Complete the index of an owner that a process of a former version has written to. False:
        writes are refused."""
        self.forget(owner, [member for member in members if not ids_of([member])])
        for batch in batches(iter(ids_of(members)), PAGE):
            found = self._summaries(owner, dict.fromkeys(batch, ""), ())
            try:
                self._batches.one(self._index.add(owner, map(_entry, found.values())))
            except BackendUnavailable:
                return False
        return True


def _in_order(block: Sequence[ConversationSummary]) -> Iterator[ConversationSummary]:
    """Yield the conversations of a block, newest saved first."""
    summaries = sorted(block, key=_cursor, reverse=True)
    yield from summaries[:-1]
    for last in summaries[-1:]:  # after it nothing of the block is left to be read
        yield replace(last, bounds=2 * last.bounds[:12])


def _entry(summary: ConversationSummary) -> tuple[str, int, int]:
    """Return what the index has of a conversation."""
    expires, used = summary.expires_at, summary.last_accessed
    ttl = 0.0 if expires is None else max(0.001, (expires - used).total_seconds())
    return summary.id, milliseconds(ttl), round(summary.modified_at.timestamp() * 1000)
