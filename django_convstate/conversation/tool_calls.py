"""Which messages of a history belong together: calls of tools, and their results.

An API refuses a history in which a result stands without its call, or a call without all of its
results, and with it every later request. What belongs together is a group here; a history may be
cut between groups only. Three shapes are told apart, each message by its own:

- Chat Completions: `tool_calls` of an assistant, answered by the "tool" messages right after it,
  one for each call; or, as it was before, `function_call` and one "function" message.
- Anthropic: blocks of type `tool_use` in the content of an assistant, answered by the `tool_result`
  blocks at the beginning of the next message of the user, or of several, which are joined.
- Responses: items without a role. One with a `call_id` is a call, answered anywhere later by one of
  its type plus "_output". A `reasoning` item stays with what the model has put out right after it.

No I/O: plain dictionaries come in and go out.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from ..codec import JSON

Plain = dict[str, JSON]  # a message
Call = tuple[str, JSON]  # the kind of a call, and its id

LEADING_ROLES: Final = ("system", "developer")
STAND_IN: Final = "There is no result: the call was interrupted."

_NOT_THE_MODEL: Final = ("user", "tool", "function", *LEADING_ROLES)
_UNANSWERABLE: Final[Call] = ("", None)


class Item:
    """A message of a history: what it calls, and what it answers.

    Attributes:
        calls: the calls that it makes.
        results: the calls that it answers.
        is_item: whether it is one of the Responses API: its calls may be answered anywhere later.
        open: those of `calls` that were not answered.
        answers: the indexes of the messages that have answered.
        orphans: those of `results` that answer nothing.
        stand_ins: what is to be sent after it.
    """

    # Most messages have none of these; those that do get their own.
    calls: Sequence[Call] = ()
    results: Sequence[Call] = ()
    open: list[Call] = []  # noqa: RUF012
    answers: Sequence[int] = ()
    orphans: Sequence[Call] = ()
    stand_ins: Sequence[Plain] = ()
    is_item = is_left_out = False

    def __init__(self, message: Plain) -> None:
        self.message = message
        if "role" not in message:
            self.is_item = True
            call, is_result = _item_call(message)
            if is_result:
                self.results = (call,)
            elif call is not _UNANSWERABLE:
                self.calls = (call,)
        elif message["role"] in _NOT_THE_MODEL:
            self.results = _results(message)
        else:
            self.calls = _calls(message)
        if self.calls:
            self.open = list(self.calls)

    @property
    def is_output(self) -> bool:
        """Whether it is something that a model has put out in the Responses API."""
        if self.is_item:
            return not self.results
        return self.message.get("type") == "message" and self.message["role"] == "assistant"

    @property
    def is_reasoning(self) -> bool:
        return self.is_item and self.message.get("type") == "reasoning"

    @property
    def has_origin(self) -> bool:
        """Whether the API knows by its id if it came of a reasoning, and then insists on that."""
        kind = self.message.get("type")
        if not self.message.get("id") or not isinstance(kind, str):
            return False
        return is_message_item(self.message) or kind.endswith(("_call", "_request"))

    @property
    def can_stand_in(self) -> bool:
        """Whether all of its calls have an answer that can be made up."""
        return all(kind in _STAND_INS and id is not None for kind, id in self.calls)

    def drop(self, results: Sequence[Call]) -> None:
        """Leave out some of its results; all of it, if nothing else is left."""
        self.message = _without(self.message, results)
        self.is_left_out = self.is_left_out or not self.message


class History:
    """Messages of which each call knows what has answered it."""

    def __init__(self, messages: Sequence[Plain]) -> None:
        self._items = [Item(message) for message in messages]
        self._start = 0  # what comes before it is not sent
        self._cut = 0  # before it, what has no call may have it further back
        self.illegal = 0
        self._has_items = any(item.is_item for item in self._items)
        calling: list[Item] = []  # those whose results have to come next
        open_items: list[Item] = []  # those whose results may come later
        for index, item in enumerate(self._items):
            if item.results:
                self._pair(item, open_items if item.is_item else calling, index)
            elif item.is_item and item.calls:
                open_items.append(item)
            if item.is_item or not item.results:
                calling = [item] if item.calls and not item.is_item else []
            elif len(item.orphans) == len(item.results) and _without(item.message, item.results):
                calling = []  # what is left of it stands between a call and its results

    def _pair(self, item: Item, calling: list[Item], index: int) -> None:
        for result in item.results:
            for caller in reversed(calling):
                if result in caller.open:
                    caller.open.remove(result)
                    caller.answers = [*caller.answers, index]
                    break
            else:
                item.orphans = [*item.orphans, result]
        if item.is_item:
            calling[:] = [caller for caller in calling if caller.open]

    def settle(self, *, stands_in: bool, is_cut: bool) -> None:
        """Leave out what no API takes, and calls that were not answered; or answer those, if
        `stands_in`.

        `is_cut`: there are others before these, so that the first ones may belong to one of them.
        """
        if is_cut:
            self._skip_rest_of_group()
        for batch in self._batches():
            calls = [self._items[index] for index in batch]
            if not any(item.open for item in calls):
                continue
            if stands_in and all(item.can_stand_in for item in calls):
                self._answer(calls, batch[-1])
            else:
                self._leave_out(calls)
        for index, item in enumerate(self._items):
            if item.orphans and index >= self._start:
                may_be_cut = index < self._cut or (is_cut and item.is_item)
                self.illegal += not may_be_cut and "redacted" not in item.message
                item.drop(item.orphans)
        if self._has_items:
            self._leave_out_lone_reasoning()

    def _skip_rest_of_group(self) -> None:
        items = self._items
        asked = next((i for i, item in enumerate(items) if _is_asking(item)), len(items))
        start = 0
        for index, item in enumerate(items[:asked]):
            if item.orphans and (item.is_item or index == start):
                start = index + 1
        # What the model has put out first may have come of a reasoning that lies before it; not so
        # what it has put out after a result.
        output = 0
        while output < asked and items[output].is_output and not items[output].is_reasoning:
            if _begins_anew(items[output], items[:output]):
                break
            output += 1
        if any(item.is_reasoning for item in items) or any(
            item.has_origin for item in items[:output]
        ):
            start = max(start, output)
        for index, item in enumerate(items):
            if index < start and item.answers:
                start = max(start, item.answers[-1] + 1)
        self._cut = start
        self._start = start if start < len(items) else 0

    def _batches(self) -> Iterable[list[int]]:
        """Return the indexes of calls of which none can be left out alone: the items that came of
        one reasoning need it, and it needs the first of them."""
        batches: dict[int, list[int]] = {}
        origin: int | None = None
        for index, item in enumerate(self._items):
            if item.is_reasoning:
                origin = index
            elif not item.is_output:
                origin = None
            if item.calls:
                batches.setdefault(index if origin is None else origin, []).append(index)
        return batches.values()

    def _answer(self, calls: list[Item], end: int) -> None:
        for item in calls:
            last = max([end, *item.answers])
            made = [_STAND_INS[kind](id) for kind, id in item.open]
            self._items[last].stand_ins = [*self._items[last].stand_ins, *made]
            item.answers = [*item.answers, last]
            item.open = []

    def _leave_out(self, calls: list[Item]) -> None:
        for item in calls:
            item.is_left_out = True
            for index in set(item.answers):
                answer = self._items[index]
                answer.drop([result for result in answer.results if result in item.calls])

    def _leave_out_lone_reasoning(self) -> None:
        """Leave out each reasoning without what came of it first."""
        is_followed = False
        for item in reversed(self._items):
            if item.is_reasoning:
                item.is_left_out = not is_followed
            else:
                is_followed = item.is_output and not item.is_left_out

    def groups(self) -> Iterator[list[Item]]:
        """Yield what belongs together, in order."""
        group: list[Item] = []
        end = -1  # where the results of the group end
        has_reasoning = False  # whether what comes next may have come of one
        for index in range(self._start, len(self._items)):
            item = self._items[index]
            if has_reasoning:
                has_reasoning = item.is_output and not _begins_anew(item, group)
            if item.is_left_out:
                continue
            if group and index > end and not has_reasoning:
                yield group
                group = []
            group.append(item)
            if item.answers:
                end = max([end, *item.answers])
            has_reasoning = (has_reasoning or item.is_reasoning) and not item.stand_ins
        if group:
            yield group


def _begins_anew(item: Item, group: list[Item]) -> bool:
    """Tell whether what a model puts out cannot have come of the reasoning before: it comes of
    another one, or is a second answer."""
    if not group:
        return False
    is_second = "role" in item.message and "role" in group[-1].message
    return is_second or (item.is_reasoning and not group[-1].is_reasoning)


def _is_asking(item: Item) -> bool:
    """Tell whether a message is of the user, or an instruction: what a model puts out, and what
    answers its calls, does not reach beyond it."""
    return item.message.get("role") in ("user", *LEADING_ROLES) and not item.results


# What is called, and what is answered.


def _item_call(item: Plain) -> tuple[Call, bool]:
    """Return the call that an item of the Responses API makes or answers, and which it does."""
    kind = item.get("type")
    if kind in ("mcp_approval_request", "mcp_approval_response"):
        is_response = kind == "mcp_approval_response"
        return (
            ("mcp_approval", item.get("approval_request_id" if is_response else "id")),
            is_response,
        )
    id = item.get("call_id")
    if id is None or not isinstance(kind, str):
        return _UNANSWERABLE, False  # the API itself has run it, or it is no call
    name = kind.removesuffix("_output")
    return (name.removesuffix("_call"), id), name != kind


def _calls(message: Plain) -> list[Call]:
    """Return what an assistant calls."""
    calls, content = message.get("tool_calls"), message.get("content")
    found: list[Call] = []
    if calls:
        found += [
            ("tool", call.get("id")) if isinstance(call, dict) else _UNANSWERABLE
            for call in (calls if isinstance(calls, list) else [None])
        ]
    if call := message.get("function_call"):
        found.append(
            ("function_call", call.get("name")) if isinstance(call, dict) else _UNANSWERABLE
        )
    if isinstance(content, list):
        found += [("tool_use", block.get("id")) for block in content if is_block(block, "tool_use")]
    return found


def _results(message: Plain) -> list[Call]:
    """Return what a message answers."""
    role, content = message["role"], message.get("content")
    if role == "tool":
        return [("tool", message.get("tool_call_id"))]
    if role == "function":
        return [("function_call", message.get("name"))]
    if isinstance(content, list):
        return [result for result in map(_block_result, content, _are_first(content)) if result]
    return []


def _are_first(blocks: list[JSON]) -> Iterator[bool]:
    """Yield for each block whether it is one of the results at the beginning."""
    is_first = True
    for block in blocks:
        is_first = is_first and is_block(block, "tool_result")
        yield is_first


def _block_result(block: JSON, is_first: bool) -> Call | None:
    if not is_block(block, "tool_result"):
        return None
    # After other blocks it is not taken for a result.
    return ("tool_use" if is_first else "misplaced", block.get("tool_use_id"))


def is_message_item(message: Plain) -> bool:
    """Tell whether a message is an item of the Responses API, and so is sent with its id, which a
    reasoning may need. Messages of `append` have a timestamp, and those of Anthropic a model."""
    return (
        message.get("type") == "message" and "timestamp" not in message and "model" not in message
    )


def is_block(block: JSON, kind: str) -> bool:
    """Tell whether something in the content of a message is a block of that type."""
    return isinstance(block, dict) and block.get("type") == kind


def _without(message: Plain, results: Sequence[Call]) -> Plain:
    """Return a message without some of its results, the last ones of several that are the same.
    Empty: nothing is left."""
    content = message.get("content")
    if message.get("role") in ("tool", "function") or not isinstance(content, list):
        return {} if results else message
    kept, left = [], list(results)
    for block, is_first in reversed(list(zip(content, _are_first(content), strict=True))):
        result = _block_result(block, is_first)
        if result in left:
            left.remove(result)
        else:
            kept.append(block)
    return {**message, "content": kept[::-1]} if kept else {}


_STAND_INS: Final[dict[str, Callable[[JSON], Plain]]] = {
    "tool": lambda id: {"role": "tool", "tool_call_id": id, "content": STAND_IN},
    "function_call": lambda name: {"role": "function", "name": name, "content": STAND_IN},
    "tool_use": lambda id: {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": id, "content": STAND_IN, "is_error": True}
        ],
    },
    "function": lambda id: {"type": "function_call_output", "call_id": id, "output": STAND_IN},
    "custom_tool": lambda id: {
        "type": "custom_tool_call_output",
        "call_id": id,
        "output": STAND_IN,
    },
}
