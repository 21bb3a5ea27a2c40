"""What an error report may show of our own frames: their functions and lines, and no locals.

Django's debug page, its mails and other error reporters show the local variables of every frame of
a traceback. Ours hold ids and what was said; those of a database client below ours hold commands
and passwords. `sensitive_variables` is for Django's reports alone, and does nothing where DEBUG is
on. So an exception that leaves the package takes no locals with it.
"""

import dis
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import wraps
from types import FrameType, FunctionType, TracebackType
from typing import Any, Final, TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)
Clear = Callable[[BaseException], None]

_PACKAGE: Final = __name__.rpartition(".")[0]
# Through these, values go in and out of a mapping or a sequence.
_ITEM_METHODS: Final = frozenset(
    ("__getitem__", "__setitem__", "__delitem__", "__contains__", "__iter__", "__reversed__")
)
# Before 3.13, to clear the frame of a suspended generator closes the generator.
_CLOSES_SUSPENDED: Final = sys.version_info < (3, 13)
_YIELD: Final = dis.opmap["YIELD_VALUE"]
_SUSPENDABLE: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Hidden(str):
    """A string that a report shows as stars. It is equal to the plain one, and as good as it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr("********************")

    __sentry_repr__ = __repr__


def clears_locals(target: T) -> T:
    """Have a function, or each public method of a class, clear the locals of all frames below it
    when it raises. For what calls no code of the project's."""
    return _decorated(target, clear_locals)


def clears_own_locals(target: T) -> T:
    """Have it clear the locals of this package's frames only. For what runs code of the project's,
    whose locals are useful in a report, and no secret of ours."""
    return _decorated(target, clear_own_locals)


def clear_locals(error: BaseException) -> None:
    """Clear the locals of the frames that `error` has left so far, and of those of the errors which
    led to it. But nothing of an error that the caller is handling meanwhile."""
    _clear(error.__traceback__)
    callers: set[FrameType] | None = None
    done, linked = {id(error)}, _linked(error)
    while linked:
        each = linked.pop()
        if id(each) in done:
            continue
        done.add(id(each))
        callers = _callers() if callers is None else callers
        if callers.isdisjoint(entry.tb_frame for entry in _entries(each.__traceback__)):
            _clear(each.__traceback__)
            linked += _linked(each)


def without_locals(error: E) -> E:
    """Clear the locals of an error that was caught here, for a log, and leave out the frame that
    has caught it, whose locals are still needed."""
    clear_locals(error)
    traceback = error.__traceback__
    return error.with_traceback(None if traceback is None else traceback.tb_next)


def clear_own_locals(error: BaseException) -> None:
    """Clear the locals of this package's frames in the traceback of `error`, and in those of the
    errors that led to it."""
    done, linked = set[int](), [error]
    while linked:
        each = linked.pop()
        if id(each) not in done:
            done.add(id(each))
            _clear(each.__traceback__, only_own=True)
            linked += _linked(each)


def _linked(error: BaseException) -> list[BaseException]:
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return [each for each in (error.__cause__, error.__context__, *members) if each is not None]


def _entries(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _callers() -> set[FrameType]:
    """Return the frames that are running."""
    callers = set[FrameType]()
    frame = inspect.currentframe()
    while frame is not None:
        callers.add(frame)
        frame = frame.f_back
    return callers


def _clear(traceback: TracebackType | None, *, only_own: bool = False) -> None:
    for entry in _entries(traceback):
        frame = entry.tb_frame
        if only_own and not _is_own(frame):
            continue
        if _CLOSES_SUSPENDED and _may_be_suspended(entry):
            continue
        try:
            frame.clear()
        except RuntimeError:  # it is running, or suspended
            continue


def _may_be_suspended(entry: TracebackType) -> bool:
    """Tell whether a frame waits where it has yielded, having caught this error elsewhere."""
    frame, code = entry.tb_frame, entry.tb_frame.f_code
    if not code.co_flags & _SUSPENDABLE or frame.f_lasti == entry.tb_lasti:
        return False
    return code.co_code[frame.f_lasti] == _YIELD


def _is_own(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    return bool(name == _PACKAGE or name.startswith(f"{_PACKAGE}."))


def _decorated(target: T, clear: Clear) -> T:
    decorated: Any = target
    if not isinstance(decorated, type):
        return _wrapper_of(decorated)(decorated, clear)  # type: ignore[no-any-return]
    for base in decorated.__mro__:
        # A mapping or sequence of ours has methods of these, which have the same in their frames.
        if base is not decorated and base.__module__ != "collections.abc":
            continue
        for name, method in vars(base).items():
            is_public = not name.startswith("_") or name in _ITEM_METHODS
            is_inherited = base is not decorated and name in dir(object)
            if is_public and not is_inherited and isinstance(method, FunctionType):
                found = inspect.getattr_static(decorated, name)
                if found is method:
                    setattr(decorated, name, _wrapper_of(method)(method, clear))
    return target


def _wrapper_of(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(function):
        return _async_generator
    if inspect.iscoroutinefunction(function):
        return _coroutine
    return _generator if inspect.isgeneratorfunction(function) else _function


# What is wrapped around a function. Its own arguments go, too, before the error does.


def _function(function: Callable[..., Any], clear: Clear) -> Callable[..., Any]:
    @wraps(function)
    def clearing(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            del args, kwargs
            clear(error)
            raise

    return clearing


def _coroutine(function: Callable[..., Any], clear: Clear) -> Callable[..., Any]:
    @wraps(function)
    async def clearing(*args: Any, **kwargs: Any) -> Any:
        try:
            return await function(*args, **kwargs)
        except BaseException as error:
            del args, kwargs
            clear(error)
            raise

    return clearing


def _generator(function: Callable[..., Any], clear: Clear) -> Callable[..., Any]:
    @wraps(function)
    def clearing(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        try:
            return (yield from function(*args, **kwargs))
        except BaseException as error:
            del args, kwargs
            clear(error)
            raise

    return clearing


def _async_generator(function: Callable[..., Any], clear: Clear) -> Callable[..., Any]:
    @wraps(function)
    async def clearing(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        items = function(*args, **kwargs)
        try:
            async for item in items:
                yield item
        except BaseException as error:
            item = None
            del args, kwargs
            await items.aclose()
            clear(error)
            raise

    return clearing
