"""Django's caches of whole pages: what was made from a conversation stays out of them."""

import functools
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.middleware.cache import UpdateCacheMiddleware

from .request import is_touched


@functools.cache
def keep_out_of_caches() -> None:
    """Have `UpdateCacheMiddleware`, and so `CacheMiddleware` and `cache_page`, store no response to
    a request that has used its conversation, from now on.

    Our middleware marks such a response as private, but a cache inside of it has stored it by then.
    To set `request._cache_update_cache` to False is not enough, either: a cache that begins after
    the conversation was used sets it to True again, and the request of Django REST framework, which
    wraps ours, has one of its own. So the answer is given where the cache asks the question.
    """
    cache: Any = UpdateCacheMiddleware
    decide = cache._should_update_cache

    @functools.wraps(decide)
    def decide_with_conversation(
        self: UpdateCacheMiddleware, request: HttpRequest, response: HttpResponseBase
    ) -> bool:
        return not is_touched(request) and decide(self, request, response)

    cache._should_update_cache = decide_with_conversation
