"""Histories as applications store them, and what the APIs of models say of them.

The rules, and where they are written down:

Chat Completions (https://platform.openai.com/docs/guides/function-calling, and its errors 400):
- "messages with role 'tool' must be a response to a preceding message with 'tool_calls'";
- "an assistant message with 'tool_calls' must be followed by tool messages responding to each
  'tool_call_id'", in any order, before anything else. `function_call` and "function" are the same,
  by name, as they were before.
- DeepSeek (https://api-docs.deepseek.com/guides/thinking_mode): next to tool calls,
  `reasoning_content` has to be sent back, or the request is refused.

Responses (https://platform.openai.com/docs/guides/reasoning, and its errors 400):
- "No tool call found for function call output with call_id ...";
- "No tool output found for function call ...", which may come anywhere later;
- "Item of type 'reasoning' was provided without its required following item";
- "Item of type 'function_call' was provided without its required 'reasoning' item", and the same
  for a message. The API knows which item came with which reasoning by their ids.

Anthropic (https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls):
- "Each `tool_use` block must have a corresponding `tool_result` block in the next message";
- "Each `tool_result` block must have a corresponding `tool_use` block in the previous message";
- "In the user message containing tool results, the tool_result blocks must come first".

The oracle here knows these rules and how a history was made. It knows no groups: it tries each end
of the history.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Plain = dict[str, Any]


@dataclass
class History:
    """A history in the making. Those of `messages` whose indexes are in `dead` belong to calls
    that never got all their results; `origins` is the reasoning that an item came with."""

    messages: list[Plain] = field(default_factory=list)
    dead: set[int] = field(default_factory=set)
    origins: dict[str, str] = field(default_factory=dict)
    missing: int = 0  # results
    made: int = 0

    def add(self, *messages: Plain, dead: bool = False) -> None:
        if dead:
            first = len(self.messages)
            self.dead.update(range(first, first + len(messages)))
        self.messages += messages

    def new_id(self, prefix: str) -> str:
        self.made += 1
        return f"{prefix}{self.made}"

    @property
    def has_reasoning(self) -> bool:
        """Whether what is added to the items of a model may have come of a reasoning."""
        for message in reversed(self.messages):
            kind = message.get("type", "message")
            if kind == "reasoning" or kind.endswith("_output") or message.get("role") == "user":
                return bool(kind == "reasoning")
        return False

    @property
    def living(self) -> list[Plain]:
        return [m for index, m in enumerate(self.messages) if index not in self.dead]


# What happens in a conversation: its kind, how many calls are made, how many are answered (at most
# all), and in which order. Each shape has its way to write that down.
Event = tuple[str, int, int, bool]
Shape = Callable[[History, Event], None]


def ordered(ids: list[str], answered: int, is_reversed: bool) -> list[str]:
    return (ids[::-1] if is_reversed else ids)[:answered]


def text(history: History, role: str) -> Plain:
    return {"role": role, "content": history.new_id(role)}


def chat(history: History, event: Event) -> None:
    kind, calls, answered, is_reversed = event
    if kind != "calls":
        return history.add(text(history, kind))
    if calls == 4:  # the old kind
        name, is_dead = history.new_id("f"), answered == 0
        history.missing += is_dead
        call = {"role": "assistant", "content": None, "function_call": {"name": name}}
        result = {"role": "function", "content": "r", "name": name}
        return history.add(call, *([] if is_dead else [result]), dead=is_dead)
    ids = [history.new_id("call") for _ in range(calls)]
    history.missing += calls - min(answered, calls)
    history.add(
        {"role": "assistant", "content": None, "tool_calls": [{"id": id} for id in ids]},
        *(
            {"role": "tool", "content": "r", "tool_call_id": id}
            for id in ordered(ids, answered, is_reversed)
        ),
        dead=answered < calls,
    )
    return None


def anthropic(history: History, event: Event) -> None:
    kind, calls, answered, is_reversed = event
    if kind != "calls":
        return history.add(text(history, kind))
    calls = min(calls, 3)
    ids = [history.new_id("toolu") for _ in range(calls)]
    history.missing += calls - min(answered, calls)
    is_dead = answered < calls
    uses = [{"type": "tool_use", "id": id, "input": {}} for id in ids]
    thinking: list[Plain] = [{"type": "thinking", "thinking": "t", "signature": "s"}]
    history.add({"role": "assistant", "content": thinking + uses}, dead=is_dead)
    results: list[Plain] = [
        {"type": "tool_result", "tool_use_id": id, "content": "r"}
        for id in ordered(ids, answered, is_reversed)
    ]
    if results:
        more = [{"type": "text", "text": "and this"}] if is_reversed and not is_dead else []
        history.add({"role": "user", "content": results + more}, dead=is_dead)
    return None


def responses(history: History, event: Event) -> None:
    kind, _, _, has_reasoning = event
    if kind in ("system", "developer", "user"):
        return history.add({"type": "message", **text(history, kind)})
    reasoning = history.new_id("rs") if has_reasoning else ""
    is_answer = kind == "assistant"
    if history.has_reasoning and not reasoning and not (is_answer and event[1] <= 2):
        # Who reads it could not tell that this did not come of the reasoning before.
        history.add({"role": "user", "content": history.new_id("user")})
    (_answer if is_answer else _call)(history, event, reasoning)
    return None


def _answer(history: History, event: Event, reasoning: str) -> None:
    made: list[Plain] = [
        {"type": "message", "id": history.new_id("msg"), **text(history, "assistant")}
    ]
    if event[1] > 2:  # the API itself has searched before
        search = {"type": "web_search_call", "id": history.new_id("ws"), "status": "completed"}
        made.insert(0, search)
    if reasoning:
        history.origins |= {each["id"]: reasoning for each in made}
        made.insert(0, {"type": "reasoning", "id": reasoning, "summary": []})
    history.add(*made)


def _call(history: History, event: Event, reasoning: str) -> None:
    _, calls, answered, is_reversed = event
    calls = min(calls, 3)
    is_dead = answered < calls
    history.missing += calls - min(answered, calls)
    if reasoning:
        history.add({"type": "reasoning", "id": reasoning, "summary": []}, dead=is_dead)
    kinds = ["custom_tool_call" if number == 2 else "function_call" for number in range(calls)]
    made = {history.new_id("call"): kind for kind in kinds}
    answers = ordered(list(made), answered, is_reversed)
    for id, kind in made.items():
        if reasoning:
            history.origins[f"fc_{id}"] = reasoning
        call = {"type": kind, "id": f"fc_{id}", "call_id": id, "name": "f"}
        # Those of one reasoning live and die together.
        history.add(call, dead=is_dead if reasoning else id not in answers)
    for place, id in enumerate(answers):
        if place == 1 and not is_dead:  # somebody says something meanwhile
            history.add({"role": "user", "content": history.new_id("user")})
        output = {"type": f"{made[id]}_output", "call_id": id, "output": "r"}
        history.add(output, dead=is_dead and bool(reasoning))


# What the APIs say.


def chat_errors(messages: Sequence[Plain], origins: object = None) -> list[str]:
    errors: list[str] = []
    awaited: list[tuple[str, str]] = []
    for number, message in enumerate(messages):
        role = message["role"]
        if role in ("tool", "function"):
            answer = role, message["tool_call_id" if role == "tool" else "name"]
            if answer in awaited:
                awaited.remove(answer)
            else:
                errors.append(f"{number} answers no call right before it")
            continue
        if awaited:
            errors.append(f"{awaited} were not answered before {number}")
        awaited = [("tool", call["id"]) for call in message.get("tool_calls", ())]
        if "function_call" in message:
            awaited.append(("function", message["function_call"]["name"]))
        if not awaited and not isinstance(message.get("content"), (str, list)):
            errors.append(f"{number} has no content")
    return errors + [f"{each} was never answered" for each in awaited]


def anthropic_errors(messages: Sequence[Plain], origins: object = None) -> list[str]:
    errors: list[str] = []
    used: list[str] = []
    for number, message in enumerate(messages):
        content = message["content"]
        blocks = content if isinstance(content, list) else []
        kinds = [block["type"] for block in blocks]
        results = [b["tool_use_id"] for b in blocks if b["type"] == "tool_result"]
        if sorted(results) != sorted(used):
            errors.append(f"{number} has results of {results}, and the one before uses {used}")
        if "tool_result" in kinds[len(results) :]:
            errors.append(f"the results of {number} do not come first")
        if isinstance(content, list) and not content:
            errors.append(f"{number} is empty")
        used = [block["id"] for block in blocks if block["type"] == "tool_use"]
    return errors + [f"{each} was not answered" for each in used]


def responses_errors(items: Sequence[Plain], origins: dict[str, str] | None = None) -> list[str]:
    errors: list[str] = []
    open_calls: list[tuple[str, str]] = []
    known: set[str] = set()
    for number, item in enumerate(items):
        kind = item.get("type", "message")
        if kind.endswith("_output"):
            call = kind.removesuffix("_output"), item["call_id"]
            if call in open_calls:
                open_calls.remove(call)
            else:
                errors.append(f"no tool call found for {number}")
        elif "call_id" in item:
            open_calls.append((kind, item["call_id"]))
        if (origin := (origins or {}).get(item.get("id", ""))) and origin not in known:
            errors.append(f"{number} was provided without its required {origin}")
        known.add(item.get("id", ""))
        if kind == "reasoning":
            following = items[number + 1] if number + 1 < len(items) else {}
            is_output = following.get("role") == "assistant" or (
                "role" not in following and not following.get("type", "_output").endswith("_output")
            )
            if not is_output:
                errors.append(f"{number} was provided without its required following item")
    return errors + [f"no tool output found for {call}" for call in open_calls]


Errors = Callable[[Sequence[Plain], dict[str, str] | None], list[str]]
SHAPES: dict[str, tuple[Shape, Errors]] = {
    "chat": (chat, chat_errors),
    "anthropic": (anthropic, anthropic_errors),
    "responses": (responses, responses_errors),
}


def made_of(shape: Shape, events: Sequence[Event]) -> History:
    history = History()
    for event in events:
        shape(history, event)
    return history


def longest_end(
    messages: Sequence[Plain],
    leading: Sequence[Plain],
    is_legal: Callable[[list[Plain]], bool],
    size: int,
    budget: float = float("inf"),
    count: Callable[[Plain], int] = lambda message: 0,
) -> list[Plain]:
    """Return the leading messages with the longest end of the others that is legal and fits; if
    none fits, with the shortest legal one."""
    legal = [
        [*leading, *messages[start:]]
        for start in range(len(messages))
        if is_legal([*leading, *messages[start:]])
    ]
    fitting = [end for end in legal if len(end) <= size and sum(map(count, end)) <= budget]
    return [*fitting, *legal[-1:], list(leading)][0]


def leading_of(messages: Sequence[Plain]) -> int:
    for index, message in enumerate(messages):
        if message.get("role") not in ("system", "developer"):
            return index
    return len(messages)
