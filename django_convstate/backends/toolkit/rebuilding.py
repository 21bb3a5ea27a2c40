"""How to make another backend like one, for the tests of a project."""

from typing import Any, ClassVar, Protocol, TypeVar

from ...exceptions import InvalidBackend


class Rebuildable(Protocol):
    """What is asked of a backend: see `ConversationStateBackend`."""

    name: ClassVar[str]
    option_names: ClassVar[tuple[str, ...]]
    is_shared: ClassVar[bool]


B = TypeVar("B", bound=Rebuildable)


def rebuilt(backend: B, name: str) -> B:
    """Return a backend with the options of another one, and with `name` in its prefix.

    Raises:
        InvalidBackend: that does not keep the two apart, or the class cannot be built by them.
    """
    if backend.is_shared and "key_prefix" not in backend.option_names:
        raise InvalidBackend(
            f"The {backend.name} backend takes no key_prefix, so it needs a method `isolated`: "
            "see docs/backends.md."
        )
    cls: Any = type(backend)
    try:
        options = {option: getattr(backend, option) for option in backend.option_names}
        if "key_prefix" in options:
            options["key_prefix"] += f".{name}"
        another: B = cls(**options)
    except (AttributeError, TypeError) as error:
        raise InvalidBackend(
            f"Another {backend.name} backend could not be built by its option_names; give it a "
            f"method `isolated`: see docs/backends.md. ({error})"
        ) from error
    return another
