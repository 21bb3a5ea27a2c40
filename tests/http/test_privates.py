"""The privates of others that this package relies on: where a new version has no such thing, this
says so, by name, and not a conversation in a cache, or a view that is lost."""

import inspect
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from django.http import HttpRequest
from django.middleware.cache import CacheMiddleware, UpdateCacheMiddleware


def test_djangos_cache_asks_whether_to_store_a_response() -> None:
    needed = "http/caching.py wraps UpdateCacheMiddleware._should_update_cache"
    cache: Any = UpdateCacheMiddleware
    assert hasattr(cache, "_should_update_cache"), needed
    parameters = list(inspect.signature(cache._should_update_cache).parameters)
    assert parameters == ["self", "request", "response"], needed
    assert "self._should_update_cache(request, response)" in inspect.getsource(
        cache.process_response
    ), f"{needed}, which process_response has to call"
    assert CacheMiddleware._should_update_cache is cache._should_update_cache, needed  # type: ignore[attr-defined]


async def test_asgiref_keeps_the_tasks_that_a_thread_waits_for() -> None:
    needed = "http/hangups.py puts a task of its own into SyncToAsync.threadlocal.task_context"

    def tasks() -> Any:
        return getattr(SyncToAsync.threadlocal, "task_context", None)

    assert isinstance(await sync_to_async(tasks)(), list), needed


@pytest.mark.parametrize("name", ["main_event_loop", "main_event_loop_pid"])
async def test_asgiref_knows_the_loop_that_waits_for_a_thread(name: str) -> None:
    def found() -> Any:
        return getattr(SyncToAsync.threadlocal, name, None)

    assert await sync_to_async(found)() is not None, f"news.py reads SyncToAsync.threadlocal.{name}"


def test_rest_framework_keeps_djangos_request() -> None:
    request = pytest.importorskip("rest_framework.request").Request(djangos := HttpRequest())
    assert request._request is djangos, "http/wrapped.py assigns the conversation through _request"
