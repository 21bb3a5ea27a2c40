"""The example that streams a model's answer, with a model that says what a test wants."""

import asyncio
from collections.abc import Iterator
from http.client import IncompleteRead

import pytest
from playwright.async_api import expect

from tests.support.chromium import PATIENCE
from tests.support.programs import Visitor, events, next_event, serving
from tests.support.servers import free_ports, wait_until
from tests.support.stub_model import END, MODEL, StubModel, stub_model


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return free_ports(2)


@pytest.fixture(scope="module")
def url(ports: list[int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the example; it asks at the port of `model`."""
    site, model = ports
    url = f"http://127.0.0.1:{site}"
    command = ["-m", "uvicorn", "--app-dir", "examples/llm_stream", "app:application"]
    env = {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{model}/v1",
        "OPENAI_API_KEY": "none",
        "MODEL": MODEL,
        "NO_PROXY": "127.0.0.1",
    }
    log = tmp_path_factory.mktemp("llm_stream") / "log"
    with serving(url, log, *command, "--port", str(site), **env):
        yield url


@pytest.fixture
def model(ports: list[int]) -> Iterator[StubModel]:
    with stub_model(ports[1]) as stub:
        yield stub


@pytest.fixture
def visitor(url: str) -> Visitor:
    return Visitor(url)


def test_an_answer_comes_word_by_word(visitor, model):
    with visitor.say("Good morning", "/chat") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        model.words.put("Good ")
        assert next_event(response) == ("word", "Good ")  # while the model is still at it
        model.will_say("day", " \N{SLIGHTLY SMILING FACE}\n\ndata: x")
        assert next_event(response) == ("word", "day")
        assert next_event(response) == ("word", " \N{SLIGHTLY SMILING FACE}\n\ndata: x")
        assert next_event(response) == ("done", {"tokens": 7})
        assert next_event(response) is None
    page = visitor.page()
    assert page.index('class="user">Good morning<') < page.index('class="assistant">Good day')


def test_the_model_is_sent_what_was_said_before(visitor, model):
    for question, answer in (("My name is Ada", "Hello Ada"), ("Who am I?", "Ada")):
        model.will_say(answer)
        events(visitor.say(question, "/chat"))
    first, second = model.asked
    assert first["path"] == "/v1/chat/completions"
    assert (first["model"], first["stream"]) == (MODEL, True)
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert second["messages"][1:] == [
        {"role": "user", "content": "My name is Ada"},
        {"role": "assistant", "content": "Hello Ada"},
        {"role": "user", "content": "Who am I?"},
    ]


def test_a_long_history_is_cut_to_the_budget(visitor, model):
    for number in range(5):
        model.will_say("a" * 6000)
        events(visitor.say(f"Question {number}", "/chat"))
    contents = [message["content"] for message in model.asked[-1]["messages"]]
    assert contents[0].startswith("You are")
    assert contents[-1] == "Question 4"
    assert "Question 0" not in contents


def test_a_visitor_who_stops_the_answer_keeps_what_there_was_of_it(visitor, model):
    with visitor.say("Tell me a story", "/chat") as response:
        model.words.put("Once ")
        assert next_event(response) == ("word", "Once ")
    assert model.left.wait(30)  # nobody pays for the rest
    wait_until(lambda: "assistant interrupted" in visitor.page())
    assert 'class="assistant interrupted">Once ' in visitor.page()
    model.will_say("Sorry")
    assert events(visitor.say("Go on", "/chat"))[-1][0] == "done"
    assert [m["content"] for m in model.asked[-1]["messages"][1:]] == [
        "Tell me a story",
        "Once ",
        "Go on",
    ]


def test_a_model_that_fails_loses_no_question(visitor, model):
    model.status = 404
    ((name, text),) = events(visitor.say("Are you there?", "/chat"))
    assert name == "failed"
    assert "No such model" in text
    assert 'class="user">Are you there?<' in visitor.page()
    model.status = 200
    model.will_say("Now I am")
    assert events(visitor.say("And now?", "/chat"))[-1][0] == "done"


def test_an_answer_that_cannot_be_read_keeps_what_there_was_of_it(visitor, model):
    with visitor.say("Tell me a story", "/chat") as response:
        model.words.put("Once ")
        assert next_event(response) == ("word", "Once ")
        model.words.put(b"data: {no JSON\n\n")
        model.words.put(END)
        with pytest.raises(IncompleteRead):
            response.read()
    assert 'class="assistant interrupted">Once ' in visitor.page()


def test_a_second_tab_waits_for_its_turn(visitor, model):
    with visitor.say("First", "/chat") as first:
        model.words.put("One")
        assert next_event(first) == ("word", "One")
        with visitor.say("Second", "/chat") as second:
            model.will_say("!")
            assert [name for name, _ in events(first)] == ["word", "done"]
            model.will_say("Two")
            assert [name for name, _ in events(second)] == ["word", "done"]
    assert [m["content"] for m in model.asked[-1]["messages"][1:]] == ["First", "One!", "Second"]


def test_nothing_is_refused_and_asks_nobody(visitor, model):
    with visitor.say("  ", "/chat") as response:
        assert (response.status, response.read()) == (400, b"There is no text.")
    assert visitor.status_without_token("hi", "/chat") == 403
    assert model.asked == []


@pytest.mark.asyncio(loop_scope="session")
async def test_the_page_shows_the_answer_as_it_comes_and_stops_it(browser, url, model):
    problems: list[str] = []
    async with await browser.new_page() as page:
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: problems.append(str(error)))
        await page.goto(url)
        await page.get_by_label("Say").fill("Good morning")
        await page.get_by_label("Say").press("Enter")
        answers = page.locator(".assistant")
        model.words.put("Good ")
        await expect(answers).to_have_text("Good ")
        model.will_say("day\n\n<b>")
        await expect(answers).to_have_text("Good day\n\n<b>")
        await expect(page.get_by_role("button", name="Stop")).to_be_disabled()
        await page.get_by_label("Say").fill("Tell me a story")
        await page.get_by_role("button", name="Send").click()
        model.words.put("Once ")
        await expect(answers.nth(1)).to_have_text("Once ")
        await page.get_by_role("button", name="Stop").click()
        await expect(answers.nth(1)).to_have_class("assistant interrupted")
        assert await asyncio.to_thread(model.left.wait, 30)
        await page.reload()
        await expect(page.locator(".user")).to_have_count(2)
        assert problems == []
