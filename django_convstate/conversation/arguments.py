"""What methods of a conversation are called with, checked before anything is done."""

from typing import Any, Final

from .. import conf, ids
from ..exceptions import InvalidConversationType, InvalidConversationValue

_MAX_VERSION: Final = 2**53  # a double, as in Redis, holds whole numbers exactly up to this one


def check_ttl(ttl: float | None) -> Any:
    """Return `ttl` unchanged, or raise `InvalidConversationValue` if it is no duration."""
    if ttl is not None and (problem := conf.lifetime(ttl)):
        raise InvalidConversationValue(f"ttl {problem}.")
    return ttl


def check_version(version: int | None) -> int | None:
    """Return `version` unchanged, or raise `InvalidConversationValue` if it cannot be one."""
    if version is not None and (type(version) is not int or version < 0):
        raise InvalidConversationType("An expected version is an integer, and not negative.")
    if version is not None and version > _MAX_VERSION:
        raise InvalidConversationValue(f"An expected version is at most {_MAX_VERSION}.")
    return version


def known_owner(owner: ids.Owner) -> str:
    """Return the owner that a string or a user stands for, or raise `InvalidConversationValue` for
    none."""
    found = ids.owner_of(owner)
    if found is None:
        raise InvalidConversationValue(
            "None, or a visitor who is not logged in, is no owner; claim it for a user who is."
        )
    return found
