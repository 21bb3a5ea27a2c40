"""Conversations in Redis or Valkey: two round trips a turn, however long the conversation is.

The commands are plain ones of Redis 6.2, in Lua scripts; no module is needed.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, ClassVar, Final, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.core.checks import CheckMessage

from ...exceptions import BackendUnavailable, ConversationCorrupt, ConversationError
from ...ids import hashed_id, new_id
from ..base import ConversationStateBackend
from ..records import Acquired, Change, Committed, Diverged, Record
from ..reports import ConversationSummary, Finding, Health, Progress, PurgeReport, Selection
from ..toolkit.listing import newest_first
from ..toolkit.packed import Pair, packing
from .client.clients import Clients
from .client.deadline import Deadline, in_time
from .command import Operation, Reply
from .damage import DamageSearch
from .diagnostics.checks import check_entry, check_server, check_use, is_usable
from .diagnostics.server_info import adescribe, describe, key_on_each_primary
from .errors import CLIENT_ERRORS, is_unknown_command, misconfiguration, translated
from .listing import Listing
from .operations import Operations
from .replies import MISREAD, NOT_A_RECORD
from .restoring import Restoration
from .slots import id_in_slot_of

_NOT_INDEXED: Final = (
    "The owner's index could not be brought up to date about conversation %s; a later turn or "
    "listing retries. %s"
)
_NOT_QUARANTINED: Final = (
    "Damaged conversation %s could not be quarantined; its next load retries. %s"
)

logger = logging.getLogger("django_convstate")

P = ParamSpec("P")
T = TypeVar("T")


class RedisBackend(ConversationStateBackend):
    """Keeps conversations in the Redis of an entry of CACHES. docs/redis.md says what it promises;
    the methods are those of `ConversationStateBackend`."""

    name: ClassVar = "redis"
    option_names: ClassVar[tuple[str, ...]] = ("max_age", "cache_alias", "key_prefix")
    expires_natively: ClassVar = True
    can_fall_back: ClassVar = True

    def __init__(
        self,
        *,
        max_age: float | None = None,
        cache_alias: str = "default",
        key_prefix: str = "convstate",
    ) -> None:
        super().__init__(max_age=max_age)
        self.cache_alias = cache_alias
        self._operations = Operations(key_prefix, max_age)
        self._clients = Clients(cache_alias)
        self._misconfigured = ""
        self._listing = Listing(self._operations, self._clients)

    def load(self, id: str, window: int, known: Record | None = None) -> Record | None:
        """See `ConversationStateBackend.load`."""
        return self._run(id, self._operations.load(id, window, known))

    async def aload(self, id: str, window: int, known: Record | None = None) -> Record | None:
        """See `load`."""
        return await self._arun(id, lambda: self._operations.load(id, window, known))

    def peek(self, id: str, window: int) -> Record | None:
        """See `ConversationStateBackend.peek`."""
        try:
            return self._run(id, self._operations.peek(id, window))
        except BackendUnavailable as error:
            if not is_unknown_command(error.__cause__):
                raise
        # Redis 6.2, which has no scripts that only read
        return self._run(id, self._operations.peek(id, window, "EVALSHA"))

    async def apeek(self, id: str, window: int) -> Record | None:
        """See `peek`."""
        try:
            return await self._arun(id, lambda: self._operations.peek(id, window))
        except BackendUnavailable as error:
            if not is_unknown_command(error.__cause__):
                raise
        return await self._arun(id, lambda: self._operations.peek(id, window, "EVALSHA"))

    def shard_of(self, id: str) -> str | None:
        """See `ConversationStateBackend.shard_of`: a node of a cluster."""
        is_cluster = self._clients.config.is_cluster
        return self._clients.node_of(self._operations.keys(id)[0]) if is_cluster else None

    def commit(self, id: str, change: Change) -> Committed:
        """See `ConversationStateBackend.commit`."""
        return self._run(id, self._operations.commit(id, change))

    async def acommit(self, id: str, change: Change) -> Committed:
        """See `commit`."""
        return await self._arun(id, lambda: self._operations.commit(id, change))

    def read_messages(self, id: str, start: int, stop: int) -> Sequence[Pair]:
        """See `ConversationStateBackend.read_messages`."""
        return self._run(id, self._operations.read_messages(id, start, stop))

    async def aread_messages(self, id: str, start: int, stop: int) -> Sequence[Pair]:
        """See `read_messages`."""
        return await self._arun(id, lambda: self._operations.read_messages(id, start, stop))

    def find(self, id: str, message_id: str) -> tuple[int, bytes] | None:
        """See `ConversationStateBackend.find`."""
        return self._run(id, self._operations.find(id, message_id))

    async def afind(self, id: str, message_id: str) -> tuple[int, bytes] | None:
        """See `find`."""
        return await self._arun(id, lambda: self._operations.find(id, message_id))

    def exists(self, id: str) -> bool:
        """See `ConversationStateBackend.exists`."""
        return self._run(id, self._operations.exists(id))

    async def aexists(self, id: str) -> bool:
        """See `exists`."""
        return await self._arun(id, lambda: self._operations.exists(id))

    def touch(self, id: str, ttl: float | None = None) -> bool:
        """See `ConversationStateBackend.touch`."""
        return self._run(id, self._operations.touch(id, ttl))

    async def atouch(self, id: str, ttl: float | None = None) -> bool:
        """See `touch`."""
        return await self._arun(id, lambda: self._operations.touch(id, ttl))

    def delete(self, id: str, expected_version: int | None = None) -> bool:
        """See `ConversationStateBackend.delete`."""
        return self._run(id, self._operations.delete(id, expected_version))

    async def adelete(self, id: str, expected_version: int | None = None) -> bool:
        """See `delete`."""
        return await self._arun(id, lambda: self._operations.delete(id, expected_version))

    def id_beside(self, id: str) -> str:
        """See `ConversationStateBackend.id_beside`: on a cluster, one in the same slot."""
        return id_in_slot_of(id) if self._clients.config.is_cluster else new_id()

    def rename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
        """See `ConversationStateBackend.rename`."""
        return self._run(id, self._operations.rename(id, new_id, expected_version))

    async def arename(self, id: str, new_id: str, expected_version: int | None = None) -> bool:
        """See `rename`."""
        return await self._arun(id, lambda: self._operations.rename(id, new_id, expected_version))

    def restore(self, id: str, record: Record, messages: Iterable[Pair], **options: Any) -> None:
        """See `ConversationStateBackend.restore`."""
        restoration = Restoration(self._operations, id, record)
        for operation in restoration.stage(packing(messages)):
            self._run(id, operation)
        self._run(id, restoration.finish(**options))

    def acquire(
        self, id: str, lease: str, seconds: float, window: int, known: Record | None = None
    ) -> Acquired:
        """See `ConversationStateBackend.acquire`."""
        return self._run(id, self._operations.acquire(id, lease, seconds, window, known))

    async def aacquire(
        self, id: str, lease: str, seconds: float, window: int, known: Record | None = None
    ) -> Acquired:
        """See `acquire`."""
        acquire = partial(self._operations.acquire, id, lease, seconds, window, known)
        return await self._arun(id, acquire)

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        """See `ConversationStateBackend.renew`."""
        return self._run(id, self._operations.renew(id, lease, seconds))

    async def arenew(self, id: str, lease: str, seconds: float) -> bool:
        """See `renew`."""
        return await self._arun(id, lambda: self._operations.renew(id, lease, seconds))

    def release(self, id: str, lease: str) -> None:
        """See `ConversationStateBackend.release`."""
        self._run(id, self._operations.release(id, lease))

    async def arelease(self, id: str, lease: str) -> None:
        """See `release`."""
        await self._arun(id, lambda: self._operations.release(id, lease))

    def scan(
        self,
        owner: str | None = None,
        *,
        limit: int | None = None,
        after: str | None = None,
        keys: Sequence[str] = (),
    ) -> Iterator[ConversationSummary]:
        """See `ConversationStateBackend.scan`: of an owner exact to a minute; of all in no order,
        unless it is limited."""
        if owner is not None:
            return self._listing.of_owner(owner, limit, after, keys)
        # Newest first has to look at them all: of an owner there are few, of all perhaps millions.
        found = self._listing.everything(keys)
        is_whole = limit is None and after is None
        return found if is_whole else newest_first(found, limit, after)

    def purge(
        self,
        selection: Selection,
        *,
        dry_run: bool = False,
        batch_size: int = 500,
        progress: Progress | None = None,
    ) -> PurgeReport:
        """See `ConversationStateBackend.purge`."""
        if selection.only_expired:
            return PurgeReport(dry_run=dry_run)  # Redis drops what has expired by itself
        return self._listing.purge(selection, dry_run, batch_size, progress)

    def find_damage(self, ttl: float, *, progress: Progress | None = None) -> Iterator[Finding]:
        """See `ConversationStateBackend.find_damage`."""
        return DamageSearch(self._operations, self._listing, self._clients, ttl).findings(progress)

    def health(self) -> Health:
        """See `ConversationStateBackend.health`. Writes to each primary, because a server may
        answer and refuse writes alone."""
        started, config, node = time.perf_counter(), self._clients.config, ""
        prefix, timeout = self._operations.prefix, config.discovery_timeout
        try:
            with self._clients.sync() as client:
                for name, key in key_on_each_primary(client.redis, prefix, timeout):
                    node = name
                    client.send(self._operations.probe(key))
                latency_ms, node = (time.perf_counter() - started) * 1000, ""
                with Deadline(config.timeout, connecting=config.connect_timeout):
                    return Health(self.name, True, latency_ms, detail=describe(client.pooled()))
        except (BackendUnavailable, *CLIENT_ERRORS) as error:
            return self._unhealthy(error, node)

    async def ahealth(self) -> Health:
        """See `health`."""
        started, config, node = time.perf_counter(), self._clients.config, ""
        prefix, timeout = self._operations.prefix, config.discovery_timeout
        try:
            async with await self._clients.for_loop() as client:
                for name, key in key_on_each_primary(client.redis, prefix, timeout):
                    node = name
                    await client.send(self._operations.probe(key))
                latency_ms, node = (time.perf_counter() - started) * 1000, ""
                telling = adescribe(await client.pooled())
                detail = await in_time(telling, config.timeout, config.connect_timeout)
                return Health(self.name, True, latency_ms, detail=detail)
        except (BackendUnavailable, *CLIENT_ERRORS) as error:
            return self._unhealthy(error, node)

    def isolated(self, name: str) -> "RedisBackend":
        """See `ConversationStateBackend.isolated`. Shares the connections."""
        ours = Operations(f"{self._operations.prefix}.{name}", self.max_age)
        vars(other := copy(self)).update(_operations=ours, _listing=Listing(ours, self._clients))
        return other

    def erase(self) -> None:
        """See `ConversationStateBackend.erase`."""
        self._listing.erase()

    def age(self, seconds: float) -> None:
        """See `ConversationStateBackend.age`."""
        self._listing.age(math.ceil(seconds * 1000))

    def close(self) -> None:
        """See `ConversationStateBackend.close`: the client of all threads."""
        self._clients.close()

    async def aclose(self) -> None:
        """See `ConversationStateBackend.close`: the client of the running event loop."""
        await self._clients.aclose()

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[CheckMessage]:
        """See `ConversationStateBackend.check`."""
        return check_entry(options["cache_alias"])

    @classmethod
    def check_deployment(cls, options: Mapping[str, Any]) -> list[CheckMessage]:
        """See `ConversationStateBackend.check_deployment`."""
        messages = list(check_server(options["cache_alias"]))
        if is_usable(messages):
            messages += check_use(backend := cls(**options))
            backend.close()
        return messages

    async def _call(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        # Not in the thread that all requests share: a listing or a purge may take its time.
        return await sync_to_async(method, thread_sensitive=False)(*args, **kwargs)

    # An operation, and then in round trips of their own what remains to be done. That may fail: the
    # next caller finds it undone, and does it.

    def _run(self, id: str, operation: Operation[T]) -> T:
        try:
            reply = self._execute(operation)
        except ConversationCorrupt:
            self._follow_up(id, self._operations.quarantine(id), _NOT_QUARANTINED)
            raise
        if reply.then is not None:
            self._follow_up(id, reply.then, _NOT_INDEXED)
        return reply.value

    async def _arun(self, id: str, make: Callable[[], Operation[T]]) -> T:
        try:
            reply = await self._aexecute(make)
        except ConversationCorrupt:
            await self._afollow_up(id, self._operations.quarantine(id), _NOT_QUARANTINED)
            raise
        if reply.then is not None:
            await self._afollow_up(id, reply.then, _NOT_INDEXED)
        return reply.value

    def _follow_up(self, id: str, operation: Operation[None], failure: str) -> None:
        try:
            reply = self._execute(operation)
            if reply.then is not None:
                self._follow_up(id, reply.then, failure)
        except (BackendUnavailable, ConversationCorrupt) as error:
            logger.warning(failure, hashed_id(id), error)

    async def _afollow_up(self, id: str, operation: Operation[None], failure: str) -> None:
        try:
            reply = await self._aexecute(lambda: operation)
            if reply.then is not None:
                await self._afollow_up(id, reply.then, failure)
        except (BackendUnavailable, ConversationCorrupt) as error:
            logger.warning(failure, hashed_id(id), error)

    def _execute(self, operation: Operation[T]) -> Reply[T]:
        try:
            reply = self._clients.sync().execute(operation)
        except CLIENT_ERRORS as error:
            raise self._failed(error) from error
        try:
            return operation.read(reply)
        except (ConversationError, Diverged):
            raise
        except MISREAD as error:
            raise ConversationCorrupt(NOT_A_RECORD) from error

    async def _aexecute(self, make: Callable[[], Operation[T]]) -> Reply[T]:
        try:
            client = await self._clients.for_loop()
            operation, reply = await client.execute(make)
        except CLIENT_ERRORS as error:
            raise self._failed(error) from error
        try:
            return operation.read(reply)
        except (ConversationError, Diverged):
            raise
        except MISREAD as error:
            raise ConversationCorrupt(NOT_A_RECORD) from error

    @property
    def misconfigured(self) -> str:
        """See `ConversationStateBackend.misconfigured`."""
        return self._misconfigured

    def _failed(self, error: Exception) -> Exception:
        """Return our exception for an error, and note whether an outage can have caused it."""
        ours, why = translated(error, self.cache_alias), ""
        if isinstance(ours, BackendUnavailable):
            why = misconfiguration(error, has_answered=self._clients.has_answered)
        if why and not self._misconfigured:
            logger.error("%s %s", ours, why)
        self._misconfigured = why and f"{ours} {why}"
        return ours

    def _unhealthy(self, error: Exception, node: str) -> Health:
        if not isinstance(error, BackendUnavailable):
            error = self._failed(error)
        detail = f"{error} That is node {node}." if node else str(error)
        return Health(self.name, False, detail=detail)
