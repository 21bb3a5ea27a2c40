"""How to call a backend in a thread that serves no request."""

from collections.abc import Callable
from contextvars import Context
from typing import ParamSpec, TypeVar

from django.core.cache import close_caches
from django.db import connections

P = ParamSpec("P")
T = TypeVar("T")


def run_isolated(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` with connections of this thread's own, and close them after it, as Django
    does after a request."""

    def call() -> T:
        try:
            return function(*args, **kwargs)
        finally:
            close_caches()
            connections.close_all()

    # In a context of its own, or the caches of another thread would be used, and closed.
    return Context().run(call)
