"""Methods and their asyncio twins, called alike."""

import asyncio
from typing import Any


def call(way: str, owner: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call a method, or its twin in an event loop of its own."""
    if way == "sync":
        return getattr(owner, name)(*args, **kwargs)
    return asyncio.run(getattr(owner, f"a{name}")(*args, **kwargs))
