"""What an error reporter would see of an error: every local of every frame, and every repr."""

import pprint
from collections.abc import Iterator
from types import TracebackType

CANARY = "-".join(("can", "ary"))  # so that this source, in a report, is not taken for a leak


def errors_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that are linked with it."""
    linked, seen = [error], set[int]()
    while linked:
        each = linked.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            linked += [other for other in (each.__cause__, each.__context__) if other is not None]
            linked += each.exceptions if isinstance(each, BaseExceptionGroup) else ()


def shown_of(error: BaseException) -> set[int]:
    """Return the ids of the errors whose text is shown: not what led to one raised `from None`."""
    linked, shown = [error], set[int]()
    while linked:
        each = linked.pop()
        if id(each) not in shown:
            shown.add(id(each))
            hides = each.__suppress_context__
            other = each.__cause__ if hides else each.__context__
            linked += [] if other is None else [other]
            linked += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    return shown


def frames_of(error: BaseException) -> Iterator[TracebackType]:
    entry = error.__traceback__
    while entry is not None:
        yield entry
        entry = entry.tb_next


def leaks(error: BaseException, *modules: str) -> list[str]:
    """Return where the canary is: in the locals of frames that are not of the tests themselves, or
    of those `modules` only; and in the errors."""
    found, shown = [], shown_of(error)
    for each in errors_of(error):
        if (CANARY in str(each) or CANARY in repr(each)) and id(each) in shown:
            found.append(f"{type(each).__name__}: {each!r}")
        for entry in frames_of(each):
            name = entry.tb_frame.f_globals["__name__"]
            if name.startswith("tests") or not name.startswith(modules or ("",)):
                continue
            for local, value in entry.tb_frame.f_locals.items():
                if CANARY in repr(value) or CANARY in pprint.pformat(value):
                    found.append(f"{name}.{entry.tb_frame.f_code.co_name}: {local} = {value!r}")
    return found


def functions_of(error: BaseException) -> list[str]:
    """Return the names of the functions in the tracebacks of an error."""
    return [
        entry.tb_frame.f_code.co_qualname for each in errors_of(error) for entry in frames_of(each)
    ]
