"""Who is told of the operations of a store: observers, and the request that they are done for."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from .backends.base import ConversationStateBackend
from .tracebacks import clear_locals

logger = logging.getLogger("django_convstate")

# Told of each operation: its name, the backend's, how many seconds it took, and "ok" or the name of
# the error's class. Not of a listing, whose time is mostly that of its caller.
Observer = Callable[[str, str, float, str], None]

observers: Final[list[Observer]] = []

# Called whenever a conversation is used for the request that is being served: a response that was
# made from one is for its visitor alone. None: there is no request.
in_request: Final[ContextVar[Callable[[], None] | None]] = ContextVar(
    "django_convstate.in_request", default=None
)


@contextmanager
def observed(operation: str, backend: ConversationStateBackend) -> Iterator[None]:
    """Tell the observers of one operation, in a with block around it."""
    started, outcome = time.perf_counter(), "ok"
    try:
        yield
    except BaseException as error:
        outcome = type(error).__name__
        clear_locals(error)  # an observer that fails is logged with it
        raise
    finally:
        seconds = time.perf_counter() - started
        for observer in observers.copy():
            try:
                observer(operation, backend.name, seconds, outcome)
            except Exception:
                logger.exception("An observer of the conversation store failed.")
