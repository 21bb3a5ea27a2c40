"""Divides a change that is too large, or takes too long, to be replayed at once.

The change may have arrived before, and only its answer was lost; or it may still be on its way. So
the first piece, the head, has its commit number: where the change is, the head is not applied, and
where the head is, the change is not applied any more. The other pieces have numbers of their own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..records import Change, Create, Replacement
from ..toolkit.packed import Pair
from ..toolkit.writer import ThisProcess

PIECE_BYTES = 256 * 2**10  # of messages in one commit of a replay, unless one alone has more

_Item = Replacement | Pair


def is_too_large(change: Change) -> bool:
    """Tell whether a change is to be divided before it is sent."""
    items = _items(change)
    return len(items) > 1 and sum(map(_size, items)) > PIECE_BYTES


def divided(id: str, change: Change, end: int) -> list[tuple[Change, int]] | None:
    """Return the pieces of a change, of at most half its size, the head first; each with the
    position after the last message then. None: it cannot be divided.

    Args:
        id: the conversation; the pieces get numbers of commits to it.
        end: the position after the last message, when the change was made.
    """
    items = _items(change)
    if len(items) < 2:
        return None
    limit = min(PIECE_BYTES, sum(map(_size, items)) // 2)
    end -= len(change.append)
    kept_whole = [] if change.keep_messages is None else change.replace
    head = replace(change, replace=kept_whole, append=(), once=())
    pieces = [(head, end)]
    visitor = change.owner or "" if change.create is Create.MUST_BE_NEW else change.visitor
    for chunk in _chunks(items, limit):
        append = [item for item in chunk if not isinstance(item, Replacement)]
        end += len(append)
        piece = Change(
            create=Create.MUST_EXIST,
            unless_deleted=change.unless_deleted,
            visitor=visitor,
            default_ttl=change.default_ttl,
            replace=[item for item in chunk if isinstance(item, Replacement)],
            append=append,
            once={message_id for message_id, _ in append if message_id in change.once},
            max_messages=change.max_messages,
            drop_oldest=change.drop_oldest,
            commit=ThisProcess.writer.begin(id),
        )
        pieces.append((piece, end))
    return pieces


def mark_of(pieces: Sequence[Change]) -> str | None:
    """Return the id of a message that only these pieces append; None: there is none."""
    own = (id for piece in pieces for id, _ in piece.append if id not in piece.once)
    return next(own, None)


def _items(change: Change) -> list[_Item]:
    """Return what may go in different pieces: not what is replaced before others are dropped."""
    return [*(() if change.keep_messages is not None else change.replace), *change.append]


def _size(item: _Item) -> int:
    if isinstance(item, Replacement):
        return len(item.new) + len(item.old or b"")
    return len(item[1])


def _chunks(items: Sequence[_Item], limit: int) -> Iterator[list[_Item]]:
    chunk, size = list[_Item](), 0
    for item in items:
        if chunk and size + _size(item) > limit:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += _size(item)
    yield chunk
