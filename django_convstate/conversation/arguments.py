"""What methods of a conversation are called with, checked before anything is done."""

from typing import Any, Final

from .. import conf, ids
from ..exceptions import InvalidConversationType, InvalidConversationValue
from .turn import OnBusy, check_on_busy

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


def selected_owner(owner: ids.Owner) -> str | None:
    """Return the owner that a string or a user stands for; None, which selects all, for None.

    Raises:
        InvalidConversationValue: a user who is not logged in, and must not select all.
    """
    found = ids.owner_of(owner)
    if owner is not None and found is None:
        raise InvalidConversationValue("owner is a user who is not logged in, and owns nothing.")
    return found


def turn_wait(on_busy: OnBusy, timeout: float | None, options: conf.Options) -> float:
    """Return for how many seconds a turn is waited for at most, or raise `InvalidConversationValue`
    if it is told that wrongly."""
    check_on_busy(on_busy)
    if timeout is not None and (problem := conf.seconds(timeout)):
        raise InvalidConversationValue(f"timeout {problem}.")
    if on_busy == "reject":
        return 0
    return options.turn_wait if timeout is None else timeout
