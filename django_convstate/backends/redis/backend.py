"""Conversations in Redis or Valkey: two round trips a turn, however long the conversation is.

The commands are plain ones of Redis 6.2, in Lua scripts; no module is needed.
"""

import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

from asgiref.sync import sync_to_async
from django.core.checks import CheckMessage

from ...exceptions import BackendUnavailable, ConversationCorrupt
from ..base import ConversationStateBackend
from ..records import (
    Acquired,
    Change,
    Committed,
    ConversationSummary,
    Health,
    Progress,
    PurgeReport,
    Record,
    Selection,
)
from .client.connections import Clients
from .client.deadline import Deadline
from .client.retrying import asend, in_time, send
from .diagnostics.checks import check_place, check_server
from .diagnostics.server_info import adescribe, describe, key_on_each_primary
from .errors import Explained, is_unknown_command
from .listing import Listing
from .operations import Operation, Operations

logger = logging.getLogger("django_convstate")

T = TypeVar("T")


class RedisBackend(ConversationStateBackend):
    name: ClassVar = "redis"
    option_names: ClassVar = ("max_age", "cache_alias", "key_prefix")
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
        self._explained = Explained(cache_alias)
        self._listing = Listing(self._operations, self._clients, self._explained)

    def load(self, id: str, window: int) -> Record | None:
        return self._run(self._operations.load, id, window)

    async def aload(self, id: str, window: int) -> Record | None:
        return await self._arun(self._operations.load, id, window)

    def peek(self, id: str, window: int) -> Record | None:
        try:
            return self._run(self._operations.peek, id, window)
        except BackendUnavailable as error:
            if not is_unknown_command(error.__cause__):
                raise
        return self.load(id, window)  # Redis 6.2, which cannot say that nothing is to be written

    async def apeek(self, id: str, window: int) -> Record | None:
        try:
            return await self._arun(self._operations.peek, id, window)
        except BackendUnavailable as error:
            if not is_unknown_command(error.__cause__):
                raise
        return await self.aload(id, window)

    def shard_of(self, id: str) -> str:
        if not self._clients.place.is_cluster:
            return ""
        return self._clients.node_of(self._operations.keys(id)[0])

    def commit(self, id: str, change: Change) -> Committed:
        return self._run(self._operations.commit, id, change)

    async def acommit(self, id: str, change: Change) -> Committed:
        return await self._arun(self._operations.commit, id, change)

    def read_messages(self, id: str, start: int, stop: int) -> list[bytes]:
        return self._run(self._operations.read_messages, id, start, stop)

    async def aread_messages(self, id: str, start: int, stop: int) -> list[bytes]:
        return await self._arun(self._operations.read_messages, id, start, stop)

    def exists(self, id: str) -> bool:
        return self._run(self._operations.exists, id)

    async def aexists(self, id: str) -> bool:
        return await self._arun(self._operations.exists, id)

    def touch(self, id: str, ttl: float | None = None) -> bool:
        return self._run(self._operations.touch, id, ttl)

    async def atouch(self, id: str, ttl: float | None = None) -> bool:
        return await self._arun(self._operations.touch, id, ttl)

    def delete(self, id: str, expected_version: int | None = None) -> bool:
        return self._run(self._operations.delete, id, expected_version)

    async def adelete(self, id: str, expected_version: int | None = None) -> bool:
        return await self._arun(self._operations.delete, id, expected_version)

    def acquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
        return self._run(self._operations.acquire, id, lease, seconds, window)

    async def aacquire(self, id: str, lease: str, seconds: float, window: int) -> Acquired:
        return await self._arun(self._operations.acquire, id, lease, seconds, window)

    def renew(self, id: str, lease: str, seconds: float) -> bool:
        return self._run(self._operations.renew, id, lease, seconds)

    async def arenew(self, id: str, lease: str, seconds: float) -> bool:
        return await self._arun(self._operations.renew, id, lease, seconds)

    def release(self, id: str, lease: str) -> None:
        self._run(self._operations.release, id, lease)

    async def arelease(self, id: str, lease: str) -> None:
        await self._arun(self._operations.release, id, lease)

    def close(self) -> None:
        self._clients.close()

    async def aclose(self) -> None:
        await self._clients.aclose()

    # One round trip, in sync code and in async code.

    def _run(self, make: Callable[..., Operation[T]], id: str, *arguments: Any) -> T:
        try:
            with self._explained, self._clients.turn() as client:
                operation = make(id, *arguments)
                answer = operation.read(self._send(client, operation))
        except ConversationCorrupt:
            self._set_aside(id)
            raise
        if answer.then is not None:
            self._afterwards(answer.then)
        return answer.value

    async def _arun(self, make: Callable[..., Operation[T]], id: str, *arguments: Any) -> T:
        try:
            with self._explained:
                async with await self._clients.aturn() as client:
                    # Now and not before: of ten thousand tasks only those whose turn it is may
                    # keep the loop busy, or a connection is not made in time.
                    operation = make(id, *arguments)
                    answer = operation.read(await self._asend(client, operation))
        except ConversationCorrupt:
            await self._aset_aside(id)
            raise
        if answer.then is not None:
            await self._aafterwards(answer.then)
        return answer.value

    def _send(self, client: Any, operation: Operation[Any]) -> Any:
        return send(self._clients.place, client, operation)

    async def _asend(self, client: Any, operation: Operation[Any]) -> Any:
        return await asend(self._clients.place, client, operation)

    def _afterwards(self, operation: Operation[None] | None) -> None:
        try:
            while operation is not None:
                with self._explained, self._clients.turn() as client:
                    operation = operation.read(self._send(client, operation)).then
        except (BackendUnavailable, ConversationCorrupt) as error:
            _log_index(error)

    async def _aafterwards(self, operation: Operation[None] | None) -> None:
        try:
            while operation is not None:
                with self._explained:
                    async with await self._clients.aturn() as client:
                        operation = operation.read(await self._asend(client, operation)).then
        except (BackendUnavailable, ConversationCorrupt) as error:
            _log_index(error)

    # If that fails, the next one who comes finds it as it is.

    def _set_aside(self, id: str) -> None:
        with suppress(BackendUnavailable), self._explained, self._clients.turn() as client:
            self._send(client, self._operations.set_aside(id))

    async def _aset_aside(self, id: str) -> None:
        with suppress(BackendUnavailable), self._explained:
            async with await self._clients.aturn() as client:
                await self._asend(client, self._operations.set_aside(id))

    # Listing and purging.

    def scan(self, owner: str | None = None) -> Iterator[ConversationSummary]:
        # Newest first needs them all; of an owner there are few, of all perhaps millions.
        if owner is not None:
            return iter(self._listing.of_owner(owner))
        return self._listing.everything()

    async def ascan(self, owner: str | None = None) -> AsyncIterator[ConversationSummary]:
        for summary in await sync_to_async(
            lambda: list(self.scan(owner)), thread_sensitive=False
        )():
            yield summary

    def purge(
        self,
        selection: Selection,
        *,
        dry_run: bool = False,
        batch_size: int = 500,
        progress: Progress | None = None,
    ) -> PurgeReport:
        if selection.only_expired:
            return PurgeReport(dry_run=dry_run)  # Redis drops what has expired by itself
        return self._listing.purge(selection, dry_run, batch_size, progress)

    async def apurge(self, selection: Selection, **how: Any) -> PurgeReport:
        return await sync_to_async(self.purge, thread_sensitive=False)(selection, **how)

    # How it is.

    def health(self) -> Health:
        started, timeout, node = time.perf_counter(), self._clients.place.timeout, ""
        try:
            with self._explained, self._clients.turn() as client:
                until = time.perf_counter() + timeout  # for all nodes together
                for name, key in key_on_each_primary(client, self._health_key()):
                    node = name
                    _refuse_after(until)
                    self._send(client, self._operations.probe(key))
                latency_ms = (time.perf_counter() - started) * 1000
                node = ""
                with Deadline(timeout):
                    return Health(self.name, True, latency_ms, detail=describe(client))
        except BackendUnavailable as error:
            return Health(self.name, False, detail=_with_node(error, node))

    async def ahealth(self) -> Health:
        started, timeout, node = time.perf_counter(), self._clients.place.timeout, ""
        try:
            with self._explained:
                async with await self._clients.aturn() as client:
                    until = time.perf_counter() + timeout
                    for name, key in key_on_each_primary(client, self._health_key()):
                        node = name
                        _refuse_after(until)
                        await self._asend(client, self._operations.probe(key))
                    latency_ms = (time.perf_counter() - started) * 1000
                    node = ""
                    detail = await in_time(adescribe(client), timeout)
                    return Health(self.name, True, latency_ms, detail=detail)
        except BackendUnavailable as error:
            return Health(self.name, False, detail=_with_node(error, node))

    def _health_key(self) -> str:
        # That nobody else has thought of.
        return f"{self._operations.prefix}:health:{secrets.token_hex(8)}"

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[CheckMessage]:
        return check_place(options["cache_alias"])

    @classmethod
    def check_deployment(cls, options: Mapping[str, Any]) -> list[CheckMessage]:
        return list(check_server(options["cache_alias"]))


def _refuse_after(moment: float) -> None:
    if time.perf_counter() > moment:
        raise TimeoutError("There was no answer in time.")


def _with_node(error: BackendUnavailable, node: str) -> str:
    return f"{error} That is node {node}." if node else str(error)


def _log_index(error: BackendUnavailable | ConversationCorrupt) -> None:
    # What was to be done is done; the index is told by the next one who comes.
    logger.warning("The index of an owner could not be brought up to date: %s", error)
