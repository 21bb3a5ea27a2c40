"""Which messages a model is sent, and with which fields: the leading instructions, and as much of
the newest history as fits and its API takes. No I/O.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

import orjson

from ..backends.toolkit.packed import Pair
from ..codec import JSON
from ..exceptions import InvalidConversationType, InvalidConversationValue
from .message_view import MessageView
from .tool_calls import LEADING_ROLES, History, Item, Plain, is_block, is_message_item

# What chat completion APIs take. Everything else that a message has is ours or the project's.
LLM_FIELDS: Final[tuple[str, ...]] = (
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "function_call",
)
# What the thinking of a model is called. Next to a tool call some APIs insist on it; next to an
# answer others refuse it.
REASONING_FIELDS: Final = (
    "reasoning_content",  # DeepSeek, vLLM, LiteLLM
    "reasoning",  # OpenRouter, vLLM, Groq
    "reasoning_details",  # OpenRouter
    "thinking",  # Ollama
    "thinking_blocks",  # LiteLLM, of Anthropic
    "extra_content",  # Gemini, its thought signatures
    "provider_specific_fields",  # LiteLLM, of Gemini
)

_REASONING: Final = frozenset(REASONING_FIELDS)
_PLAIN_ROLES: Final = ("user", "assistant", *LEADING_ROLES)
# A message without content is sent only if it has others than these.
_NOT_ENOUGH: Final = frozenset({"role", "name", "content"})
# A message that has none of these is sent as its role and its content.
_FURTHER: Final = frozenset({*LLM_FIELDS, *REASONING_FIELDS, "type"} - {"role", "content"})
_FURTHER_THAN_CALLS: Final = _FURTHER - {"tool_calls"}


def estimate_tokens(message: Plain) -> int:
    """Estimate the tokens of a message: a quarter of its bytes as JSON, which is a little too much
    for English text, and much too much for an image that it contains."""
    return len(orjson.dumps(message)) // 4 + 1


@dataclass(slots=True, repr=False)
class Selection:
    """What to select. `size` counts messages, `budget` tokens, by `count`; None: no limit."""

    size: int
    system: str | Plain | None = None
    budget: int | None = None
    count: Callable[[Plain], int] | None = None
    fields: Sequence[str] = ()
    dangling: str = "drop"

    @classmethod
    def of(
        cls,
        size: int,
        system: str | Plain | None,
        budget: int | None,
        count: Callable[[Plain], int] | None,
        fields: Iterable[str],
        dangling: str,
    ) -> "Selection":
        """Return what to select.

        Raises:
            InvalidConversationType, InvalidConversationValue: an argument is not of its kind.
        """
        if system is not None and not isinstance(system, (str, dict)):
            raise InvalidConversationType("system is a text, or a message.")
        if isinstance(system, dict) and "role" not in system:
            raise InvalidConversationValue("system is a message without a role.")
        if budget is not None and not isinstance(budget, (int, float)):
            raise InvalidConversationType("budget is a number of tokens.")
        if isinstance(fields, str):
            raise InvalidConversationType(f"fields are several: write fields=[{fields!r}].")
        if dangling not in ("drop", "stand_in"):
            raise InvalidConversationValue('dangling is "drop" or "stand_in".')
        return cls(size, system, budget, count, tuple(fields), dangling)

    @property
    def prefix(self) -> list[Plain]:
        """The message that is put before all others."""
        if self.system is None:
            return []
        if isinstance(self.system, str):
            return [{"role": "system", "content": self.system}]
        return [dict(self.system)]


def is_leading(message: Plain) -> bool:
    """Tell whether a message is an instruction, which stays if it is among the first."""
    return message.get("role") in LEADING_ROLES


def reach(view: MessageView, start: int, window: int) -> int:
    """Return from where on messages are looked at if those from `start` on are wanted. If they have
    to be read, so are some before them, because some may be left out."""
    return start if view.missing(start, view.end) is None else max(view.dropped, start - window)


def select_from(
    view: MessageView, wanted: Selection, read: Sequence[Pair], start: int
) -> tuple[list[Plain], int]:
    """Do as `select` with the messages of a view from `start` on, of which the `read` ones come
    first, and with those before them that are in memory."""
    stop = view.end
    messages = view.values(start, stop, read)
    start = stop - len(messages)  # the oldest may have been dropped meanwhile
    while messages and messages[0].get("role") == "tool" and view.start < start:
        # Whether there is room for older ones depends on whether its call is left out.
        before = max(view.start, start - 4)
        messages = view.values(before, start) + messages
        start = before
    head = _head(view, start) if start > view.dropped else []
    is_cut = start - len(head) > view.dropped
    if (simple := select_simple(messages, head, wanted, is_cut=is_cut)) is not None:
        return simple, 0
    if view.start < start:
        messages = view.values(view.start, start) + messages
        start = view.start
    head = []
    is_cut = start > view.dropped
    if is_cut and (first := view.first) is not None:
        if start == view.dropped + 1:
            messages, is_cut = [first, *messages], False
        elif is_leading(first):
            head = [first]
    return select(messages, head, wanted, is_cut=is_cut)


def _head(view: MessageView, stop: int) -> list[Plain]:
    """Return the leading instructions before position `stop`, as far as they are in memory."""
    head = [] if (first := view.first) is None else [first]
    position = view.dropped + len(head)
    while all(map(is_leading, head[-1:])) and view.start <= position < stop:
        head += view.values(position, min(position + 2, stop))  # mostly there is one
        position = view.dropped + len(head)
    return list(takewhile(is_leading, head))


def select_simple(
    messages: list[Plain], head: list[Plain], wanted: Selection, *, is_cut: bool
) -> list[Plain] | None:
    """Do as `select` with text and media, and tool calls of Chat Completions that have all their
    results, which is what most histories are made of. None: there is something else among them, or
    `wanted` has other limits than a size.
    """
    if wanted.budget is not None or wanted.fields:
        return None
    results: set[int] = set()
    sent = _simple(messages, results, is_cut=is_cut)
    first = _simple(head, results, is_cut=False) if head else []
    if sent is None or first is None:
        return None
    first = wanted.prefix + first
    surplus = len(first) + len(sent) - wanted.size
    if surplus > 0:
        leading = 0
        while not is_cut and leading < len(sent) and sent[leading]["role"] in LEADING_ROLES:
            leading += 1
        start = leading + surplus
        while start in results:
            start += 1
        if start >= len(sent) > leading:
            start = len(sent) - 1
            while start in results:
                start -= 1
        del sent[leading:start]
    return first + sent if first else sent


def _simple(messages: list[Plain], results: set[int], *, is_cut: bool) -> list[Plain] | None:
    """Return messages as they are sent, and add to `results` which of them answer a call. None:
    it takes `select` to tell."""
    sent: list[Plain] = []
    awaited: list[JSON] = []  # the ids of the results that have to come next
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role == "tool":
            if is_cut and not sent:
                continue  # its call lies before these messages
            shown = _awaited_result(message, awaited)
            results.add(len(sent))
        elif awaited or role not in _PLAIN_ROLES:
            return None
        elif _FURTHER.isdisjoint(message) and (type(content) is str or _is_media(content)):
            shown = {"role": role, "content": content}
        else:
            shown = _simple_calls(message, awaited)
        if shown is None:
            return None
        sent.append(shown)
    return None if awaited or not sent else sent


def _is_media(content: JSON) -> bool:
    """Tell whether a content is blocks of text, images and the like, and none of a tool."""
    if type(content) is not list:
        return False
    for block in content:
        if type(block) is dict and block.get("type") in ("tool_use", "tool_result"):
            return False
    return True


def _awaited_result(message: Plain, awaited: list[JSON]) -> Plain | None:
    """Return a result as it is sent, if it is awaited; it is not any more then."""
    id, content = message.get("tool_call_id"), message.get("content")
    if id not in awaited or type(content) is not str:
        return None
    awaited.remove(id)
    if id is None or "name" in message or "type" in message:
        return _sent(message, ())
    return {"role": "tool", "content": content, "tool_call_id": id}


def _simple_calls(message: Plain, awaited: list[JSON]) -> Plain | None:
    """Return a message as it is sent, and add to `awaited` what it calls."""
    content, calls = message.get("content"), message.get("tool_calls")
    if not (type(content) is str or (content is None and calls)) or "type" in message:
        return None
    if calls:
        if message["role"] != "assistant" or type(calls) is not list:
            return None
        for call in calls:
            awaited.append(call.get("id") if type(call) is dict else message)
        if "content" in message and _FURTHER_THAN_CALLS.isdisjoint(message):
            return {"role": "assistant", "content": content, "tool_calls": calls}
    return None if message.get("function_call") else _sent(message, ())


def select(
    messages: list[Plain], head: list[Plain], wanted: Selection, *, is_cut: bool
) -> tuple[list[Plain], int]:
    """Select what is sent: the leading instructions, and as many of the newest groups as fit.

    Args:
        messages: the newest messages, oldest first.
        head: the leading instructions, as far as they come before those.
        wanted: the limits.
        is_cut: whether there are others before `messages` and behind `head`.

    Returns:
        What is sent, and how many messages were left out or shortened because they stand where no
        API takes them.
    """
    leading = 0
    while not is_cut and leading < len(messages) and is_leading(messages[leading]):
        leading += 1
    history = History(messages[leading:])
    history.settle(stands_in=wanted.dangling == "stand_in", is_cut=is_cut)
    first = wanted.prefix
    for message in [*head, *messages[:leading]]:
        if sent := _sent(message, wanted.fields):
            first.append(sent)
    groups = [_sent_group(group, wanted.fields) for group in history.groups()]
    return first + _newest([group for group in groups if group], first, wanted), history.illegal


def _newest(groups: list[list[Plain]], first: list[Plain], wanted: Selection) -> list[Plain]:
    """Return the messages of the newest groups, as many as fit beside the `first` ones, but of one
    group at least."""
    count, budget = wanted.count or estimate_tokens, wanted.budget
    room = wanted.size - len(first)
    tokens = 0 if budget is None else sum(map(count, first))
    taken = 0
    for group in reversed(groups):
        room -= len(group)
        if budget is not None:
            tokens += sum(map(count, group))
        if taken and (room < 0 or (budget is not None and tokens > budget)):
            break
        taken += 1
    return [message for group in groups[len(groups) - taken :] for message in group]


def _sent(message: Plain, fields: Sequence[str]) -> Plain:
    """Return a message with the fields that APIs take. Empty: nothing of it can be sent."""
    if "role" not in message or is_message_item(message):
        return message
    sent = {
        name: message[name]
        for name in LLM_FIELDS
        if name in message and (message[name] or name in ("role", "content"))
    }
    if not _REASONING.isdisjoint(message) and ("tool_calls" in sent or "function_call" in sent):
        fields = (*REASONING_FIELDS, *fields)
    for name in fields:
        if message.get(name) is not None:
            sent[name] = message[name]
    # Without its content, as one that was redacted, no API takes it.
    return sent if sent.get("content") is not None or sent.keys() - _NOT_ENOUGH else {}


def _sent_group(group: list[Item], fields: Sequence[str]) -> list[Plain]:
    sent: list[Plain] = []
    for item in group:
        for message in (_sent(item.message, fields), *item.stand_ins):
            if sent and _has_results(message) and _has_results(sent[-1]):
                sent[-1] = _joined(sent[-1], message)
            elif message:
                sent.append(message)
    return sent


def _has_results(message: Plain) -> bool:
    content = message.get("content")
    return (
        message.get("role") == "user"
        and isinstance(content, list)
        and any(is_block(block, "tool_result") for block in content)
    )


def _joined(message: Plain, other: Plain) -> Plain:
    """Return two messages with results as one, in which the results come first."""
    blocks = [*message["content"], *other["content"]]
    return {
        **message,
        "content": sorted(blocks, key=lambda block: not is_block(block, "tool_result")),
    }
