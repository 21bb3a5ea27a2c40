"""What a model is sent: the fields, the limits, the shapes of APIs, and what is told of the rest.
tests/support/histories.py has the rules of the APIs, and their sources."""

import json
import logging
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation

from django_convstate import (
    ConversationStore,
    InvalidConversationValue,
    Messages,
)
from django_convstate.conversation.conversation import working_copy_of
from django_convstate.conversation.tool_calls import STAND_IN
from tests.support.backends import CountingBackend
from tests.support.histories import anthropic_errors, chat_errors, responses_errors

Plain = dict[str, Any]


def said(*items: Plain, window: int = 50) -> Messages:
    """The messages of a conversation that is loaded with these."""
    store = ConversationStore("locmem", window=window)
    conversation = store.create()
    conversation.messages.extend(items)
    conversation["saved"] = True
    conversation.save()
    return store.get(conversation.id).messages


def user(text: str = "hello") -> Plain:
    return {"role": "user", "content": text}


def system(text: str = "Be kind.") -> Plain:
    return {"role": "system", "content": text}


def calls(*ids: str, **more: Any) -> Plain:
    made = [{"id": id, "type": "function", "function": {"name": "f"}} for id in ids]
    return {"role": "assistant", "content": None, "tool_calls": made, **more}


def result(id: str) -> Plain:
    return {"role": "tool", "content": "42", "tool_call_id": id}


def uses(*ids: str) -> Plain:
    return {"role": "assistant", "content": [{"type": "tool_use", "id": id} for id in ids]}


def results(*ids: str, text: str = "") -> Plain:
    blocks: list[Plain] = [
        {"type": "tool_result", "tool_use_id": id, "content": "42"} for id in ids
    ]
    return {"role": "user", "content": blocks + [{"type": "text", "text": text}] * bool(text)}


def item(kind: str, call_id: str = "", **more: Any) -> Plain:
    return {"type": kind, **({"call_id": call_id} if call_id else {}), **more}


class TestFields:
    def test_a_message_has_what_apis_take(self) -> None:
        sent = said({**user(), "name": "Ada", "mood": "good", "timestamp": "now", "id": "1"})
        assert sent.for_llm() == [{**user(), "name": "Ada"}]

    def test_blocks_that_are_of_no_tool_are_sent_as_they_are(self) -> None:
        blocks: list[Plain] = [{"type": "text", "text": "this?"}, {"type": "image_url"}]
        messages = said({**user(), "content": blocks, "id": "1"}, {**user(), "content": []})
        expected = [{"role": "user", "content": blocks}, {"role": "user", "content": []}]
        assert messages.for_llm() == messages.for_llm(budget=10**6) == expected

    def test_other_fields_are_asked_for(self) -> None:
        messages = said({**user(), "mood": "good", "cost": 1}, {**user(), "cost": None})
        assert messages.for_llm(fields=["mood", "refusal"]) == [{**user(), "mood": "good"}, user()]
        with pytest.raises(TypeError, match="fields"):
            messages.for_llm(fields="mood")

    @pytest.mark.parametrize(
        "name",
        ["reasoning", "reasoning_content", "reasoning_details", "thinking", "thinking_blocks"],
    )
    def test_reasoning_stays_with_tool_calls_alone(self, name: str) -> None:
        thought = {name: "hm"}
        called = calls("a", **thought)
        answer = {"role": "assistant", "content": "42", **thought}
        messages = said(user(), called, result("a"), answer)
        assert messages.for_llm()[1:] == [
            called,
            result("a"),
            {"role": "assistant", "content": "42"},
        ]
        assert messages.for_llm(fields=[name])[-1] == answer

    def test_an_empty_reasoning_stays_and_none_does_not(self) -> None:
        """DeepSeek insists on the field, also when it is empty."""
        messages = said(calls("a", reasoning_content="", reasoning=None), result("a"))
        assert messages.for_llm()[0] == calls("a", reasoning_content="")

    def test_fields_without_a_value_are_left_out(self) -> None:
        """An SDK dumps them, and the API refuses them."""
        dumped = {"role": "assistant", "content": "hi", "tool_calls": None, "function_call": None}
        assert (
            said({**dumped, "tool_calls": []}, dumped).for_llm()
            == [{"role": "assistant", "content": "hi"}] * 2
        )

    def test_what_was_redacted_is_not_sent(self) -> None:
        messages = said(user("one"), user("secret"), calls("a"), result("a"), user("two"))
        for index in (1, 3):
            messages.redact(messages[index].id)
        assert messages.for_llm() == [user("one"), user("two")]

    def test_what_is_sent_can_be_changed(self) -> None:
        messages = said(calls("a"), result("a"))
        messages.for_llm()[0]["tool_calls"].clear()
        assert messages.for_llm()[0]["tool_calls"]

    @pytest.mark.parametrize("role", [None, 1, ["x"], {"x": 1}])
    @pytest.mark.parametrize("size", [1, 50])
    def test_any_json_may_be_stored_as_a_message(self, role: Any, size: int) -> None:
        strange: list[Plain] = [
            {"role": role, "content": "?"},
            {"role": "assistant", "content": ["text", 1, None], "tool_calls": "none"},
            {"role": "assistant", "content": "", "tool_calls": [1]},
            {"role": "assistant", "content": "", "tool_calls": 1},
            {"role": "assistant", "content": "", "tool_calls": {"id": "a"}},
            {"role": "assistant", "content": "", "function_call": "f"},
            {"role": "tool", "content": "", "tool_call_id": {}},
            {"role": "user", "content": [{"type": "tool_result"}]},
            {"type": "function_call_output", "call_id": []},
            {"type": 5, "call_id": "a"},
            {"type": "function_call", "call_id": 5},
            {},
        ]
        for one in strange:
            for dangling in ("drop", "stand_in"):
                said(one).for_llm(size, dangling=dangling, budget=9)
        said(*strange).for_llm(size)


class TestLimits:
    def test_leading_instructions_stay_and_count(self) -> None:
        developer = {"role": "developer", "content": "Answer in verse."}
        messages = said(system(), developer, *map(user, "abcdef"), system("later"), user("g"))
        assert messages.for_llm(4) == [system(), developer, system("later"), user("g")]
        assert messages.for_llm(3) == [system(), developer, user("g")]
        for size in (0, 1, 2):
            assert messages.for_llm(size) == [system(), developer, user("g")]

    def test_before_the_window_the_first_message_is_known(self) -> None:
        messages = said(system(), system("too"), *map(user, "abcdef"), window=3)
        assert messages.for_llm(3) == [system(), user("e"), user("f")]
        assert messages.for_llm(8) == [system(), system("too"), *map(user, "abcdef")]

    def test_the_first_one_stays_when_a_handle_lets_go_of_it(self) -> None:
        store = ConversationStore("locmem", window=3)
        conversation = store.create()
        conversation.messages.extend([system()])
        for text in "abcdef":
            conversation.messages.extend([user(text)])
            conversation.save()
        assert conversation.messages.for_llm(2) == [system(), user("f")]
        other = store.get(conversation.id)
        other.messages.extend(map(user, "ghijk"))
        other.save()
        conversation.messages.extend([user("l")])
        conversation.save()
        assert conversation.messages.for_llm(2) == [system(), user("l")]

    def test_what_became_of_the_first_one_is_sent(self) -> None:
        messages = said(system(), *map(user, "abcdef"), window=3)
        messages.update(messages[0].id, content="Be brief.")
        assert messages.for_llm(2) == [system("Be brief."), user("f")]

    @pytest.mark.parametrize("how", ["clear", "others"])
    def test_a_first_one_that_was_dropped_is_not_sent(self, how: str) -> None:
        store = ConversationStore("locmem", window=3)
        conversation = store.create()
        conversation.messages.extend([system(), *map(user, "abcdef")])
        conversation.save()
        conversation = store.get(conversation.id)
        other = store.get(conversation.id) if how == "others" else conversation
        other.messages.clear()
        other.messages.extend(map(user, "uvwxyz"[: 3 if how == "others" else 6]))
        other.save()
        conversation.messages.extend([user("!")])
        conversation.save()
        assert system() not in conversation.messages.for_llm(3)
        assert system() not in store.get(conversation.id).messages.for_llm(3)

    def test_the_oldest_that_were_dropped_are_not_missed(self) -> None:
        store = ConversationStore("locmem", window=2, max_messages=4, when_full="drop_oldest")
        conversation = store.create()
        for text in "abcdef":
            conversation.messages.extend([user(text)])
            conversation.save()
            assert conversation.messages.for_llm(1) == [user(text)]
        assert store.get(conversation.id).messages.for_llm(9) == [*map(user, "cdef")]

    def test_system_is_put_first_and_not_stored(self) -> None:
        messages = said(system(), *map(user, "abc"))
        now = system("It is Monday.")
        assert messages.for_llm(3, system="It is Monday.") == [now, system(), user("c")]
        assert messages.for_llm(system={**now, "role": "developer"})[0]["role"] == "developer"
        assert len(messages) == 4
        assert said().for_llm(system="Hi.") == [system("Hi.")]
        with pytest.raises(TypeError, match="system"):
            messages.for_llm(system=5)  # type: ignore[arg-type]
        with pytest.raises(InvalidConversationValue, match="role"):
            messages.for_llm(system={"content": "Today is Monday."})

    def test_a_budget_counts_what_is_sent(self) -> None:
        messages = said(system(), *({**user(text), "note": "x" * 999} for text in "abcdef"))
        counted: list[Plain] = []

        def count(message: Plain) -> int:
            counted.append(message)
            return 10

        assert messages.for_llm(budget=35, count=count) == [system(), user("e"), user("f")]
        assert all("note" not in message for message in counted)
        assert messages.for_llm(budget=0) == [system(), user("f")], "the newest stays"
        assert messages.for_llm(2, budget=1000) == [system(), user("f")]

    def test_the_estimate_is_a_quarter_of_the_json(self) -> None:
        messages = said(*(user("x" * 400) for _ in range(10)))
        tokens = len(json.dumps(user("x" * 400))) // 4
        for fitting in (1, 2, 9):
            assert len(messages.for_llm(budget=tokens * fitting + fitting)) == fitting

    def test_the_newest_group_stays_over_size_and_budget(self) -> None:
        group = [calls("a", "b"), result("b"), result("a")]
        messages = said(*map(user, "abc"), *group)
        for size in (0, 1, 2, 3):
            assert messages.for_llm(size) == group
        assert messages.for_llm(budget=1) == group
        assert messages.for_llm(4) == [user("c"), *group]

    def test_up_to_the_window_nothing_is_read_and_beyond_it_once(self, settings: Any) -> None:
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.CountingBackend"
        store = ConversationStore(window=4)
        conversation = store.create()
        conversation.messages.extend([system(), *map(user, "abcdefgh"), calls("a"), result("a")])
        conversation.save()
        messages = store.get(conversation.id).messages
        CountingBackend.calls.clear()
        for size in range(5):
            messages.for_llm(size)
        assert CountingBackend.calls["read_messages"] == 0
        for size in (5, 6, 10, 99):
            CountingBackend.calls.clear()
            sent = messages.for_llm(size)
            assert CountingBackend.calls["read_messages"] == 1
            assert len(sent) == min(size, 11)

    def test_what_is_asked_for_is_checked(self) -> None:
        messages = said(user())
        with pytest.raises(InvalidConversationValue, match="dangling"):
            messages.for_llm(dangling="ignore")
        with pytest.raises(TypeError, match="budget"):
            messages.for_llm(budget="100")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            messages.for_llm("5")  # type: ignore[arg-type]


class TestChatCompletions:
    def test_a_call_is_not_cut_off_from_its_results(self) -> None:
        history = [user(), calls("a", "b"), result("b"), result("a"), user("and?")]
        messages = said(*history)
        sizes = [len(messages.for_llm(size)) for size in range(1, 6)]
        assert sizes == [1, 1, 1, 4, 5]

    @pytest.mark.parametrize("answered", [[], ["a"], ["b"]])
    def test_a_call_without_all_its_results_is_left_out(
        self, answered: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        messages = said(user(), calls("a", "b"), *map(result, answered), user("hello?"))
        assert messages.for_llm() == [user(), user("hello?")]
        assert caplog.records == [], "it was legal when it was written"
        sent = messages.for_llm(dangling="stand_in")
        assert not chat_errors(sent)
        assert len(sent) == 5
        missing = {"a", "b"} - set(answered)
        assert {m["tool_call_id"] for m in sent if m["content"] == STAND_IN} == missing

    def test_a_dead_call_leaves_room_for_older_messages(self) -> None:
        messages = said(*map(user, "abc"), calls("a"), user("d"))
        assert messages.for_llm(3) == [user("b"), user("c"), user("d")]

    @pytest.mark.parametrize("size", [2, 3, 4])
    def test_so_does_one_whose_results_are_cut_by_the_size(self, size: int) -> None:
        dead = [calls("a", "b", "c"), result("a"), result("b")]
        messages = said(user("old"), user("older"), *dead, user("new"))
        kept = [user("old"), user("older"), user("new")]
        assert messages.for_llm(size) == kept[-size:]

    def test_the_old_function_calls_are_pairs_too(self) -> None:
        call = {"role": "assistant", "content": None, "function_call": {"name": "f"}}
        answer = {"role": "function", "name": "f", "content": "42"}
        assert said(user(), call, answer).for_llm(1) == [call, answer]
        assert said(call, user()).for_llm() == [user()]
        sent = said(call, user()).for_llm(dangling="stand_in")
        assert sent[1] == {**answer, "content": STAND_IN}

    def test_the_same_id_in_each_turn_is_no_mistake(self) -> None:
        """Some servers count the calls of a message, and begin anew with the next."""
        history = [calls("call_0"), result("call_0")] * 3
        assert said(*history).for_llm() == history
        assert said(*history).for_llm(3) == history[:2]

    def test_calls_without_ids_go_by_their_number(self) -> None:
        """As in Ollama's own API."""
        call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}] * 2}
        answers = [{"role": "tool", "content": "42"}] * 2
        assert said(call, *answers, user()).for_llm() == [call, *answers, user()]
        assert said(call, answers[0], user()).for_llm() == [user()]


class TestIllegalHistories:
    @pytest.mark.parametrize(
        ("history", "kept"),
        [
            ([result("a"), user()], [1]),
            ([user(), result("a"), user("b")], [0, 2]),
            ([calls("a"), user(), result("a")], [1]),
            ([calls("a"), result("a"), result("a"), user()], [0, 1, 3]),
            ([calls("a"), result("b"), result("a")], [0, 2]),
            ([results("t"), user()], [1]),
            ([item("function_call_output", "a"), user()], [1]),
        ],
    )
    def test_the_illegal_part_is_left_out_and_logged_once(
        self, history: list[Plain], kept: list[int], caplog: pytest.LogCaptureFixture
    ) -> None:
        messages = said(*history)
        for _ in range(3):
            assert messages.for_llm() == [history[index] for index in kept]
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "not sent to the model" in record.getMessage()

    def test_what_the_window_cuts_off_is_no_mistake(self, caplog: pytest.LogCaptureFixture) -> None:
        messages = said(user("a"), calls("a"), result("a"), user("b"), window=2)
        assert messages.for_llm(2) == [user("b")]
        messages = said(user("a"), calls("a"), result("a"), window=1)
        assert messages.for_llm(1) == []
        called = [item("function_call", "a"), user("b"), item("function_call_output", "a")]
        assert said(user("a"), *called, user("c"), window=3).for_llm() == [user("b"), user("c")]
        assert caplog.records == []

    def test_the_words_beside_an_orphan_are_sent(self) -> None:
        messages = said(user("a"), results("t", text="go on"))
        assert messages.for_llm()[1]["content"] == [{"type": "text", "text": "go on"}]
        late = {
            "role": "user",
            "content": [{"type": "text", "text": "so"}, *results("t")["content"]],
        }
        sent = said(uses("t"), late).for_llm()
        assert sent == [{"role": "user", "content": [{"type": "text", "text": "so"}]}]


class TestAnthropic:
    def test_a_use_stays_with_the_results_in_the_next_message(self) -> None:
        history = [user(), uses("a", "b"), results("b", "a", text="and?"), user("b")]
        messages = said(*history)
        assert [len(messages.for_llm(size)) for size in range(1, 5)] == [1, 1, 3, 4]
        assert messages.for_llm() == history

    def test_results_in_messages_of_their_own_are_sent_in_one(self) -> None:
        sent = said(uses("a", "b"), results("b", text="so"), results("a")).for_llm()
        assert not anthropic_errors(sent)
        assert sent[1] == results("b", "a", text="so")

    @pytest.mark.parametrize(
        "answered", [[], [results("a")], [results("b", text="hm")], [user("hello?")]]
    )
    def test_a_use_that_died_is_left_out_or_answered(self, answered: list[Plain]) -> None:
        messages = said(user(), uses("a", "b"), *answered, user("go on"))
        words = [block for block in (answered or [user()])[0]["content"] if "text" in block]
        sent = messages.for_llm()
        assert not anthropic_errors(sent)
        assert sent[0] == user()
        assert sent[-1] == user("go on")
        assert len(sent) == 2 + bool(words or answered == [user("hello?")])
        sent = messages.for_llm(dangling="stand_in")
        assert not anthropic_errors(sent)
        assert json.dumps(sent).count(STAND_IN) == (1 if answered and not is_text(answered) else 2)

    def test_what_the_client_answers_is_sent_without_its_fields(self) -> None:
        """They are of type "message", as items of the Responses API are."""
        dumped = {"id": "msg_1", "type": "message", "model": "claude", "usage": {}, **uses("a")}
        assert said(dumped, results("a")).for_llm() == [uses("a"), results("a")]


def is_text(answered: list[Plain]) -> bool:
    return isinstance(answered[0]["content"], str)


class TestResponses:
    def test_items_pass_as_they_are(self) -> None:
        history = [
            {"type": "message", "role": "user", "content": "hello", "status": "completed"},
            item("reasoning", id="rs_1", summary=[], encrypted_content="x"),
            item("function_call", "a", id="fc_1", name="f", arguments="{}", timestamp="now"),
            item("function_call_output", "a", output="42", mood="good"),
            item("web_search_call", id="ws_1", status="completed"),
            {"type": "message", "role": "assistant", "id": "msg_1", "content": []},
        ]
        assert said(*history).for_llm() == history

    def test_a_call_is_answered_anywhere_later(self) -> None:
        history = [
            item("function_call", "a"),
            item("custom_tool_call", "b"),
            user("hurry"),
            item("custom_tool_call_output", "b"),
            item("function_call_output", "a"),
            user("well?"),
        ]
        messages = said(*history)
        assert [len(messages.for_llm(size)) for size in (1, 5, 6)] == [1, 1, 6]

    def test_a_reasoning_stays_with_what_came_of_it(self) -> None:
        answer = {"type": "message", "role": "assistant", "id": "msg_1", "content": "42"}
        history = [item("reasoning"), answer, user(), item("reasoning", id="rs_2")]
        messages = said(*history)
        assert messages.for_llm() == history[:3], "the last one led to nothing"
        assert messages.for_llm(2) == [user()]

    def test_what_may_have_come_of_a_reasoning_that_is_not_loaded_is_left_out(self) -> None:
        """The API knows by its id, and refuses it alone."""
        answer = {"type": "message", "role": "assistant", "id": "msg_1", "content": "42"}
        call = item("function_call", "a", id="fc_1")
        output = item("function_call_output", "a")
        old = [user("old"), item("reasoning", id="rs_1")]
        assert said(*old, answer, user(), window=2).for_llm() == [user()]
        assert said(*old, call, output, user(), window=3).for_llm() == [user()]
        assert said(*old, call, user("so?"), output, user(), window=4).for_llm() == [user()]
        other = {**answer, "id": "msg_2"}
        assert said(*old, answer, other, window=2).for_llm() == [other], "a second answer"
        whole = [*old[1:], call, output, user()]
        assert said(*old, call, output, user(), window=4).for_llm() == whole

    def test_without_an_id_nothing_is_known_of_where_it_came_from(self) -> None:
        history = [item("function_call", "a"), item("function_call_output", "a"), user()]
        assert said(user("old"), *history, window=3).for_llm() == history

    def test_what_comes_after_a_result_did_not_come_of_what_is_not_loaded(self) -> None:
        # Of two calls that came of one reasoning, which is further back, one is loaded.
        answer = {"type": "message", "id": "msg1", "role": "assistant", "content": "Done."}
        items: list[Plain] = [
            {"type": "reasoning", "id": "rs1", "summary": []},
            {"type": "function_call", "id": "fc1", "call_id": "call1", "name": "f"},
            {"type": "function_call", "id": "fc2", "call_id": "call2", "name": "f"},
            {"type": "function_call_output", "call_id": "call2", "output": "42"},
            {"type": "function_call_output", "call_id": "call1", "output": "42"},
            answer,
        ]
        assert said(*items, window=1).for_llm(3) == [answer]

    def test_what_anthropic_answers_comes_of_no_reasoning_item(self) -> None:
        answer = {"type": "message", "role": "assistant", "id": "msg_1", "content": "42"}
        sent = said(user("old"), {**answer, "model": "claude"}, user(), window=2).for_llm()
        assert sent == [{"role": "assistant", "content": "42"}, user()]

    def test_the_newest_stays_as_far_as_it_is_loaded(self) -> None:
        group = [item("function_call", "a", id="fc_1"), item("function_call_output", "a")]
        assert said(user(), item("reasoning", id="rs_1"), *group, window=2).for_llm() == group

    @pytest.mark.parametrize("kind", ["function_call", "custom_tool_call"])
    def test_a_call_that_died_is_left_out_or_answered(self, kind: str) -> None:
        history = [user(), item("reasoning"), item(kind, "a"), item(kind, "b")]
        messages = said(*history, item(f"{kind}_output", "b"), user("well?"))
        assert messages.for_llm() == [user(), user("well?")], "parallel calls stay together"
        sent = messages.for_llm(dangling="stand_in")
        assert not responses_errors(sent)
        assert len(sent) == 7
        assert item(f"{kind}_output", "a", output=STAND_IN) in sent

    def test_what_comes_after_a_stand_in_did_not_come_of_the_reasoning(self) -> None:
        answer = {"type": "message", "role": "assistant", "content": "42"}
        messages = said(item("reasoning"), item("function_call", "a"), answer)
        assert messages.for_llm(1, dangling="stand_in") == [answer]

    def test_what_only_a_screenshot_answers_is_left_out(self) -> None:
        messages = said(user(), item("computer_call", "a"))
        assert messages.for_llm(dangling="stand_in") == [user()]

    def test_an_approval_stays_with_its_request(self) -> None:
        request = item("mcp_approval_request", id="mcpr_1")
        response = item("mcp_approval_response", approval_request_id="mcpr_1", approve=True)
        assert said(user(), request, response).for_llm(1) == [request, response]
        assert said(response, user()).for_llm() == [user()]


class TestAsyncCode:
    """What fails with the thousandth message fails with the first, and nothing else does."""

    @pytest.mark.parametrize("count", [0, 1, 5, 40])
    async def test_what_may_have_to_read_is_refused_at_once(self, count: int) -> None:
        messages = said(*(user(str(number)) for number in range(count)), window=5)
        for use, instead in [
            (lambda: messages.window(6), r"await messages\.awindow\(6\)"),
            (lambda: messages.for_llm(6), r"await messages\.afor_llm\(6\)"),
            (lambda: list(messages), "async for"),
            (lambda: list(reversed(messages)), "async for"),
            (lambda: messages.count(None), "async for"),
            (lambda: messages.index(1), "async for"),
            (lambda: messages[0], "apage"),
            (lambda: messages[-6], "apage"),
            (lambda: messages[:3], "apage"),
            (lambda: messages[-6:], "apage"),
            (lambda: messages[::-1], "apage"),
        ]:
            with pytest.raises(SynchronousOnlyOperation, match=instead):
                use()

    @pytest.mark.parametrize("count", [0, 1, 5, 40])
    async def test_up_to_the_window_nothing_is_refused(self, count: int) -> None:
        texts = [str(number) for number in range(count)]
        messages = said(*map(user, texts), window=5)
        for size in (None, 0, 1, 5):
            expected = texts[-5:] if size is None else texts[len(texts) - min(size, count) :]
            assert [m["content"] for m in messages.window(size)] == expected
            sent = [m["content"] for m in messages.for_llm(size)]
            assert sent == (expected or texts[-1:])
        assert [m["content"] for m in messages[-5:]] == texts[-5:]
        assert [m["content"] for m in messages[:-6:-1]] == texts[-5:][::-1]
        if count:
            assert messages[-1]["content"] == texts[-1]
        assert [m["content"] async for m in messages] == texts

    async def test_the_awaited_ones_read(self) -> None:
        messages = said(system(), *map(user, "abcdefgh"), window=2)
        assert [m["content"] for m in await messages.awindow(3)] == ["f", "g", "h"]
        assert len(await messages.awindow()) == 2
        assert await messages.afor_llm(3) == [system(), user("g"), user("h")]
        assert await messages.afor_llm(2, system="x") == [system("x"), system(), user("h")]
        assert await messages.afor_llm(99, fields=["x"]) == [system(), *map(user, "abcdefgh")]

    async def test_after_a_truncate_what_is_in_memory_is_what_there_is(self) -> None:
        messages = said(*map(user, "abcdefgh"), window=4)
        messages.truncate(6)
        assert [m["content"] for m in messages.window(4)] == ["e", "f"]
        assert messages.for_llm(4) == [user("e"), user("f")]
        assert [m["content"] for m in await messages.awindow(4)] == ["c", "d", "e", "f"]
        assert await messages.afor_llm(4) == [*map(user, "cdef")]

    def test_sync_code_reads(self) -> None:
        messages = said(*map(user, "abcdefgh"), window=4)
        messages.truncate(6)
        assert messages.for_llm(4) == [*map(user, "cdef")]
        assert [m["content"] for m in messages.window(5)] == ["b", "c", "d", "e", "f"]
        assert messages[0]["content"] == "a"
        assert len(list(messages)) == 6


def test_a_handle_knows_no_more_of_the_first_message_than_it_needs() -> None:
    store = ConversationStore("locmem", window=3)
    conversation = store.create()
    conversation.messages.extend([system(), *map(user, "ab")])
    conversation.save()
    assert working_copy_of(store.get(conversation.id)).log.view().first is None, (
        "it is in the window"
    )
