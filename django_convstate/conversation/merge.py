"""What becomes of a value that two have changed at the same time. No I/O, and no store: both the
repository and the replay after an outage call it."""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import orjson

from ..backends.records import Change, Committed, Diverged, Replacement
from ..codec import JSON, decode, encode
from ..exceptions import MessageNotFound

MERGE_TRIES: Final = 10  # while others keep changing the same
SHORTEST_PAUSE: Final = 0.004  # seconds at most at first, doubled each time
_ABSENT: Final = object()


def merged(change: Change, diverged: Diverged) -> Change:
    """Return `change` made anew, from what others have made of that from which it began.

    Raises:
        MessageNotFound: a message that was to be updated is gone.
        ConversationCorrupt: what is stored is not JSON.
    """
    changed, expected = dict(change.set), dict(change.expected)
    for key, theirs in diverged.state.items():
        if theirs is not None and key in changed:
            changed[key] = merged_bytes(expected[key], changed[key], theirs, f"state[{key!r}]")
        expected[key] = theirs
    replacements = [_rebased(each, diverged.messages) for each in change.replace]
    return replace(
        change, set=changed, expected=expected, replace=[each for each in replacements if each]
    )


def told(
    committed: Committed, original: Change, change: Change, theirs: Mapping[str, bytes | None]
) -> Committed:
    """Return the answer with what became of a change when it was merged."""
    stored = {each.id: each.new for each in change.replace}
    replaced = {each.id: stored.get(each.id) or theirs[each.id] for each in original.replace}
    return replace(
        committed,
        merged=tuple(change.expected),
        replaced={id: data for id, data in replaced.items() if data is not None},
    )


def pause_after(failures: int) -> float:
    """Return how many seconds to wait before the next try.

    The first try after an answer is made at once, for it knows what is stored. If that fails, too,
    many change the same, and each waits for a random time.
    """
    if failures % 2:
        return 0.0
    return random.uniform(0, SHORTEST_PAUSE * 2 ** (failures // 2))  # noqa: S311


def _rebased(replacement: Replacement, messages: Mapping[str, bytes | None]) -> Replacement | None:
    if replacement.id not in messages:
        return replacement
    theirs = messages[replacement.id]
    if theirs is None:
        if replacement.old is None:
            return None  # it was to be redacted, and is not even there
        raise MessageNotFound("A message that was updated is not in the conversation any more.")
    if _is_redacted(theirs) and not (replacement.old and _is_redacted(replacement.old)):
        return None  # what was redacted stays so
    new = merged_bytes(replacement.old, replacement.new, theirs, "message")
    return Replacement(id=replacement.id, old=theirs, new=new)


def _is_redacted(message: bytes) -> bool:
    value = decode(message)
    return isinstance(value, dict) and value.get("redacted") is True


def merged_bytes(base: bytes | None, mine: bytes, theirs: bytes, path: str) -> bytes:
    """Do as `merge` with JSON. `path` names the value in errors."""
    values = _ABSENT if base is None else decode(base), decode(mine), decode(theirs)
    return encode(merge(*values), path)


def merge(base: JSON, mine: JSON, theirs: JSON) -> JSON:
    """Return what `mine` and `theirs` have both made of `base`.

    Dictionaries are merged key by key. What was only appended to a list goes to the end of what the
    other has made of it. Where both have changed anything else, `mine` counts, because it is the
    later one.
    """
    if _same(mine, base):
        return theirs
    if _same(theirs, base) or _same(mine, theirs):
        return mine
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return _merge_dicts(base if isinstance(base, dict) else {}, mine, theirs)
    if isinstance(mine, list) and isinstance(theirs, list):
        before = base if isinstance(base, list) else []
        if _same(mine[: len(before)], before):
            return theirs + mine[len(before) :]
        if _same(theirs[: len(before)], before):
            return mine + theirs[len(before) :]
    return mine


def _same(one: JSON, other: JSON) -> bool:
    # Not by ==, to which 0, 0.0 and False are the same.
    if one is _ABSENT or other is _ABSENT:
        return one is other
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        other, option=orjson.OPT_SORT_KEYS
    )


def _merge_dicts(
    base: dict[str, JSON], mine: dict[str, JSON], theirs: dict[str, JSON]
) -> dict[str, JSON]:
    both = {
        key: merge(base.get(key, _ABSENT), mine.get(key, _ABSENT), theirs.get(key, _ABSENT))
        for key in {**theirs, **mine}
    }
    return {key: value for key, value in both.items() if value is not _ABSENT}
