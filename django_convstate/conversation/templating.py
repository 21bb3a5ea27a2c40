"""What templates are to keep their hands off."""

from collections.abc import Callable
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


def alters_data(method: Method) -> Method:
    """Keep templates from calling `method`, as Django does for `Model.save`."""
    method.alters_data = True  # type: ignore[attr-defined]
    return method
