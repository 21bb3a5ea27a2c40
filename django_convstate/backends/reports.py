"""What a backend tells of many conversations, and of itself: summaries, what a purge selects and
has done, health."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

from ..codec import JSON

LISTING_LAG: Final = 60.0  # seconds by which the order of a listing may be behind the last saves
CURSOR_SIZE: Final = 28  # characters of a cursor that say when which conversation was saved

# Told how many conversations are done and how many there are (None: not known).
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationSummary:
    """What a listing tells about a conversation: nothing of its contents, but the values under
    those keys of the state that were asked for. Times are aware, in UTC; `size` is in bytes of
    JSON; `expires_at` is None if it does not.

    `cursor` is its place in the listing: give it as `after`, and the listing goes on after it. A
    backend whose order is not exact has it end in `bounds`.
    """

    id: str = field(repr=False)
    owner: str | None = field(repr=False)
    version: int
    created_at: datetime
    modified_at: datetime
    last_accessed: datetime
    expires_at: datetime | None
    message_count: int
    size: int
    state: Mapping[str, JSON] = field(repr=False, default_factory=dict)
    bounds: str = field(repr=False, default="")

    @property
    def cursor(self) -> str:
        """Its place in the listing. It says when it was saved, and nothing else."""
        return cursor_of(self.id, self.modified_at) + self.bounds


def cursor_of(id: str, modified_at: datetime) -> str:
    """Return the place of a conversation in a listing: the later it was saved, the higher."""
    digest = hashlib.blake2b(id.encode(), digest_size=8).hexdigest()
    return f"{round(modified_at.timestamp() * 1000):012x}{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which conversations a purge deletes: those that are idle for `idle_for` seconds, belong to
    `owner`, or both; or everything. Without any of these, those that have expired.

    `is_thorough`: with an owner; what no index knows, and what is in quarantine, too.
    """

    idle_for: float | None = None
    owner: str | None = field(repr=False, default=None)
    everything: bool = False
    is_thorough: bool = False

    @property
    def only_expired(self) -> bool:
        """Whether it selects only what has expired."""
        return self.idle_for is None and self.owner is None and not self.everything


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """How many conversations were looked at, and how many deleted (or, in a dry run, would be)."""

    examined: int = 0
    deleted: int = 0
    dry_run: bool = False


Kind = Literal["damaged", "partial", "orphaned", "unlisted", "without_ttl", "quarantined"]

# The details of findings that every backend may have.
QUARANTINED: Final = "A load has found it damaged, and put it in quarantine."
NO_TTL: Final = "It must expire, and does not."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something in a store that is not as it should be. Nothing of its contents.

    Attributes:
        kind: what is wrong.
            "damaged": it makes no sense; the next load puts it in quarantine.
            "partial": a part of the conversation is missing, or will be before the rest.
            "orphaned": a part, or an entry of an index, of which the conversation is missing.
            "unlisted": the index of its owner does not list it.
            "without_ttl": it has to expire, and does not.
            "quarantined": a load has found it damaged.
        id: of the conversation; "" where it is not known.
        where: the key in Redis, or the row of which table.
        detail: a sentence.
    """

    kind: Kind
    id: str = field(repr=False)
    where: str = field(repr=False)
    detail: str


@dataclass(frozen=True, slots=True)
class Health:
    """How a backend is.

    Attributes:
        backend: its name.
        connected: whether it answers.
        latency_ms: one round trip in milliseconds; None without an answer.
        using_fallback: whether conversations go on in memory, because it does not.
        pending_replay: how many changes of this process are yet to be replayed to it.
        detail: a sentence: what is wrong, or else what there is to know.
        since: when the outage began, in seconds since the epoch; None: there is none.
        is_full: whether no more changes can be noted for later, so that they are refused.
        is_misconfigured: whether this process should serve no request, though it has memory: the
            store has not answered it once since it began, or refuses the login.
    """

    backend: str
    connected: bool
    latency_ms: float | None = None
    using_fallback: bool = False
    pending_replay: int = 0
    detail: str = ""
    since: float | None = None
    is_full: bool = False
    is_misconfigured: bool = False


def moment(seconds: float) -> datetime:
    """Return seconds since the epoch as an aware datetime in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def moment_or_never(seconds: float) -> datetime | None:
    """Return seconds since the epoch as an aware datetime in UTC; None for `math.inf`."""
    return None if math.isinf(seconds) else moment(seconds)
