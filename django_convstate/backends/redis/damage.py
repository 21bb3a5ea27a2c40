"""Looks for what is not as it should be among the keys of a store, and changes nothing.

What is left of a conversation that has just expired looks much like one that the server has evicted
in part: its state and messages live a tenth longer than its meta hash, and the index of its owner
lists it for a while. That is no damage. It is told apart by the time that is left, which is longer
where the conversation cannot have expired yet. For that the idle time of most conversations is
taken for that of all.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Final

from ..reports import NO_TTL, QUARANTINED, Finding, Kind, Progress
from . import scripts
from .batches import Batches
from .client.clients import Clients
from .command import Operation, Reply, script_operation, ttl_ms
from .errors import CLIENT_ERRORS, translated
from .listing import Listing
from .operations import Operations
from .owner_index import SCAN_PAGE, expiry_ms, ids_of
from .replies import text

BATCH_SIZE: Final = 500  # keys that are sorted by what they are before they are looked at
SLACK_MS: Final = 60_000  # by which an index lists what has expired for longer
_FOR_EVER: Final = -1
_PARTS: Final = ("meta", "state", "messages", "ids")
_NO_META: Final = "Its meta hash is missing: perhaps the server has evicted it."


@dataclass(frozen=True, slots=True)
class Seen:
    """What examine.lua replies of a conversation.

    Attributes:
        kind: what there is.
        owner: the owner that must list it in the index; "" if none must.
        is_lasting: whether it never expires.
        left: for how many ms each of its keys is there; -1: for ever; -2: it is not there.
    """

    kind: str
    owner: str = field(repr=False)
    is_lasting: bool
    left: tuple[int, ...]


# Of an index: now (ms), ms left of it, where the next page begins, and ids with their scores.
_Page = tuple[int, int, int, dict[str, float]]


class DamageSearch:
    """One search through the keys of a `RedisBackend`."""

    def __init__(
        self, operations: Operations, listing: Listing, clients: Clients, ttl: float
    ) -> None:
        """See `ConversationStateBackend.find_damage`."""
        self._operations, self._listing, self._clients = operations, listing, clients
        self._each = Batches(clients).each
        self._ttl_ms = math.inf if math.isinf(ttl) else ttl_ms(ttl)
        prefix = re.escape(operations.prefix)
        self._pattern = re.compile(
            rf"{prefix}:(?:\{{(?P<id>[^{{}}]+)\}}:(?P<part>meta|state|messages|ids|line)"
            rf"(?P<corrupt>:corrupt(?::\d+)?)?|(?P<owner>owner):\{{[0-9a-f]+\}}(?P<saved>:saved)?"
            rf"|(?P<staged>staged-[0-9a-f]+):\{{[^{{}}]+\}}:\w+)"
        )
        self._looks: dict[str, Callable[[Sequence[str]], Iterator[Finding]]] = {
            "meta": self._conversations,
            "part": self._parts,
            "owner": self._indexes,
            "saved": self._orders,
            "corrupt": self._quarantined,
            "beside": partial(self._lasting, detail=NO_TTL),
        }

    def findings(self, progress: Progress | None) -> Iterator[Finding]:
        """Yield each finding once; tell how many conversations were looked at."""
        known = set[Finding]()
        examined = 0
        for keys in self._batches():
            groups: dict[str, list[str]] = defaultdict(list)
            for key in keys:
                groups[self._sort_of(key)].append(key)
            for sort, look in self._looks.items():
                for finding in look(groups[sort]):
                    if finding not in known:
                        known.add(finding)
                        yield finding
            examined += len(groups["meta"])
            if progress:
                progress(examined, None)

    def _batches(self) -> Iterator[list[str]]:
        keys = self._listing.keys(f"{self._operations.prefix}:*")
        try:
            while batch := list(islice(keys, BATCH_SIZE)):
                # SCAN may return a key twice. What is not text is another program's.
                yield list(dict.fromkeys(key.decode(errors="replace") for key in batch))
        except CLIENT_ERRORS as error:
            raise translated(error, self._clients.alias) from error

    def _sort_of(self, key: str) -> str:
        found = self._pattern.fullmatch(key)
        if found is None:
            return ""
        if found["corrupt"] or found["saved"]:
            return "corrupt" if found["corrupt"] else "saved"
        if found["owner"]:
            return "owner"
        if found["staged"] or found["part"] == "line":
            return "beside"
        return "meta" if found["part"] == "meta" else "part"

    def _id_of(self, key: str) -> str:
        found = self._pattern.fullmatch(key)
        return (found and found["id"]) or ""

    def _conversations(self, keys: Sequence[str]) -> Iterator[Finding]:
        """Look at conversations by the keys of their meta hashes."""
        listed_by: dict[str, str] = {}
        for id, seen in self._examined(map(self._id_of, keys)):
            where = self._operations.keys(id)[0]
            if seen is None or seen.kind == "damaged":
                yield _finding("damaged", id, where, "It makes no sense as a conversation.")
            elif seen.kind == "partial":
                yield _finding("partial", id, where, "State, messages or ids are missing.")
            else:
                yield from self._times(id, seen)
                if seen.owner:
                    listed_by[id] = seen.owner
        yield from self._unlisted(listed_by)

    def _times(self, id: str, seen: Seen) -> Iterator[Finding]:
        """Compare the times to live of the keys of a conversation."""
        own = seen.left[0]
        for key, part, left in zip(self._operations.keys(id), _PARTS, seen.left, strict=True):
            if left == _FOR_EVER and not seen.is_lasting and seen.kind != "nothing":
                yield _without_ttl(id, key)
            elif part != "meta" and left >= 0 and (own == _FOR_EVER or left < own):
                yield _finding("partial", id, key, "It expires before its conversation does.")

    def _unlisted(self, listed_by: dict[str, str]) -> Iterator[Finding]:
        suspects = self._not_in_index(listed_by)
        # Again, for it may have been deleted or claimed in between.
        examined = self._examined(suspects)
        still = {id: seen.owner for id, seen in examined if seen is not None and seen.owner}
        for id in self._not_in_index(still):
            where = self._index_of(still[id])
            yield _finding("unlisted", id, where, "The index of its owner does not list it.")

    def _not_in_index(self, owners: dict[str, str]) -> list[str]:
        scores = self._ask(owners, lambda id: ("ZSCORE", self._index_of(owners[id]), id))
        return [id for id, score in scores.items() if score is None]

    def _parts(self, keys: Sequence[str]) -> Iterator[Finding]:
        """Look at state, messages and ids: whether their meta hash is there."""
        lasts, here = self._ttl_ms / 10 + 1000, set(keys)
        for id, seen in self._examined(map(self._id_of, keys), briefly=True):
            if seen is None or seen.kind != "nothing":
                continue
            for key, left in zip(self._operations.keys(id), seen.left, strict=True):
                if key in here and (left == _FOR_EVER or left > lasts):
                    yield _finding("orphaned", id, key, _NO_META)

    def _indexes(self, keys: Sequence[str]) -> Iterator[Finding]:
        for key in keys:
            yield from self._index(key)

    def _index(self, key: str) -> Iterator[Finding]:
        """Look at an owner's index: whether its conversations are there, and are the owner's."""
        cursor, is_lasting, left = 0, False, 0
        while True:
            page = dict(self._each(iter([key]), partial(_index_page, cursor=cursor)))
            if (found := page.get(key)) is None:
                if key in page:
                    yield _finding("damaged", "", key, "It makes no sense as an index.")
                return
            now, left, cursor, scores = found
            is_lasting = is_lasting or math.inf in map(expiry_ms, scores.values())
            due = [id for id, score in scores.items() if self._must_be_there(score, now)]
            for id in self._not_listed_rightly(due, key):
                detail = "The index of an owner lists it, and it is not there or not theirs."
                yield _finding("orphaned", id, key, detail)
            if not cursor:
                break
        if left == _FOR_EVER and not is_lasting:
            yield _without_ttl("", key)

    def _orders(self, keys: Sequence[str]) -> Iterator[Finding]:
        """Look at what orders the indexes: it has no TTL where the index has none."""
        indexes = {key: key.removesuffix(":saved") for key in keys}
        kinds = self._ask(keys, lambda key: ("TYPE", key))
        left = self._ask(keys, lambda key: ("PTTL", key))
        for key, of_index in self._ask(keys, lambda key: ("PTTL", indexes[key])).items():
            if kinds.get(key) not in (b"zset", b"none"):
                yield _finding("damaged", "", key, "It makes no sense as an index.")
            elif left.get(key) == _FOR_EVER and of_index != _FOR_EVER:
                yield _without_ttl("", key)

    def _must_be_there(self, score: float, now: int) -> bool:
        """Tell whether a conversation that was indexed then cannot have expired: see index.lua."""
        return expiry_ms(score) - now > self._ttl_ms + SLACK_MS

    def _not_listed_rightly(self, ids: Iterable[str], key: str) -> list[str]:
        """Return those of which the conversation is not there, or not this owner's. What is damaged
        or in quarantine, others tell."""
        meta = {id: self._operations.keys(id)[0] for id in ids}
        found = self._ask(meta, lambda id: ("HMGET", meta[id], "v", "o"))
        wrong = [id for id, fields in found.items() if fields and not self._is_of(key, *fields)]
        aside = self._ask(wrong, lambda id: ("EXISTS", f"{meta[id]}:corrupt"))
        # One that was deleted in between is not listed any more.
        scores = self._ask(wrong, lambda id: ("ZSCORE", key, id))
        return [id for id in wrong if not aside.get(id) and scores.get(id) is not None]

    def _index_of(self, owner: str) -> str:
        return self._operations.index.keys(owner)[0]

    def _is_of(self, index: str, version: bytes | None, owner: bytes | None) -> bool:
        if version is None or owner is None:
            return False
        return self._index_of(owner.decode(errors="replace")) == index

    def _quarantined(self, keys: Sequence[str]) -> Iterator[Finding]:
        for key in keys:
            # All parts of it count as one.
            where = re.sub(r":\w+(:corrupt(?::\d+)?)$", r":*\1", key)
            yield _finding("quarantined", self._id_of(key), where, QUARANTINED)
        yield from self._lasting(keys, detail="It is in quarantine, and must expire.")

    def _lasting(self, keys: Sequence[str], detail: str) -> Iterator[Finding]:
        for key, left in self._ask(keys, lambda key: ("PTTL", key)).items():
            if left == _FOR_EVER:
                yield _finding("without_ttl", self._id_of(key), key, detail)

    def _ask(
        self, names: Iterable[str], command: Callable[[str], tuple[str, ...]]
    ) -> dict[str, Any]:
        """Return the replies to a plain command for each name; None where a key is of another
        type."""

        def operation(name: str) -> Operation[Any]:
            return Operation(command(name), Reply)

        return dict(self._each(iter(names), operation))

    def _examined(
        self, ids: Iterable[str], *, briefly: bool = False
    ) -> Iterator[tuple[str, Seen | None]]:
        def examine(id: str) -> Operation[Seen]:
            arguments = (self._operations.max_age_ms, "1" if briefly else "")
            return script_operation(scripts.EXAMINE, self._operations.keys(id), arguments, _seen)

        return self._each(iter(dict.fromkeys(ids)), examine)


def _seen(reply: Any) -> Reply[Seen]:
    kind, owner, is_lasting, *left = reply
    return Reply(Seen(text(kind), text(owner), bool(is_lasting), tuple(left)))


def _index_page(key: str, cursor: int) -> Operation[_Page | None]:
    def read(reply: Any) -> Reply[_Page | None]:
        now, left, following, page = reply
        scores = {
            id: float(score)
            for member, score in zip(page[::2], page[1::2], strict=True)
            for id in ids_of([member])
        }
        return Reply((now, left, int(following), scores))

    return script_operation(scripts.EXAMINE_INDEX, (key,), (cursor, SCAN_PAGE), read)


def _without_ttl(id: str, where: str) -> Finding:
    return _finding("without_ttl", id, where, NO_TTL)


def _finding(kind: Kind, id: str, where: str, detail: str) -> Finding:
    return Finding(kind=kind, id=id, where=where, detail=detail)
