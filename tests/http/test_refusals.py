"""What a client sent that cannot be kept is answered in plain text, wherever that is found out."""

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import translation

from django_convstate import InvalidConversationValue, conversations
from tests.support.browsers import Browser, varies
from tests.support.refusals import BROKEN, CANARY
from tests.support.visits import Visit, check_kept

pytestmark = pytest.mark.urls("tests.support.refusals")

PLACES = ["in_view", "at_save", "in_template", "new_stream", "turn_end"]
PLACES += ["rest_view", "rest_save", "rest_rendering"]
AT_SAVE = {"at_save", "rest_save", "new_stream", "turn_end"}
STATUS = {"large": 413, "half": 400, "nan": 400}
SAYS = {
    "large": ("too large", "bytes as JSON", "MAX_"),
    "half": ("cannot be kept", "surrogate"),
    "nan": ("cannot be kept", '["score"]', "is nan"),
}
ERRORS = [
    ("ConversationNotFound", 404),
    ("MessageNotFound", 404),
    ("ConversationConflict", 409),
    ("ConversationBusy", 409),
    ("ConversationInterrupted", 400),
    ("ConversationCorrupt", 400),
    ("ConversationTooLarge", 413),
    ("InvalidConversationId", 400),
    ("InvalidConversationValue", 400),
    ("InvalidConversationType", 400),
    ("BackendUnavailable", 503),
]


@pytest.fixture(autouse=True, params=[False, True], ids=["production", "debug"])
def _debug(request: pytest.FixtureRequest, settings: Any) -> None:
    settings.DEBUG = request.param


@pytest.mark.parametrize("value", BROKEN)
@pytest.mark.parametrize("place", PLACES)
def test_a_broken_value_is_answered_in_plain_text(
    browser: Browser,
    place: str,
    value: str,
    errors: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    response = browser.get(f"{place}?value={value}")
    text = response.content.decode()
    assert response.status_code == STATUS[value]
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert [part for part in SAYS[value] if part not in text] == []
    assert ("state" if place in AT_SAVE else "message") in text
    assert len(text) < 500
    assert CANARY not in text + caplog.text
    assert varies(response) >= {"Cookie"}
    assert response.headers["Cache-Control"] == "private"
    assert response.cookies == {}
    assert list(conversations.list()) == [], "the record is as it was: there is none"
    (logged,) = errors()
    assert text.splitlines()[-1] in logged


def test_a_stream_that_ends_in_half_an_emoji_keeps_what_came_before(way: str) -> None:
    visit = Visit(way, "half_stream")
    assert visit.response.status_code == 200
    assert visit.content == "before 😀 after "
    assert isinstance(visit.error, InvalidConversationValue), "which aborts the response"
    check_kept("before 😀 after ", interrupted=True)


@pytest.mark.parametrize("view", ["raising", "rest_raising"])
@pytest.mark.parametrize(("name", "status"), ERRORS)
def test_each_error_has_its_status(browser: Browser, view: str, name: str, status: int) -> None:
    response = browser.get(f"{view}?name={name}")
    assert response.status_code == status
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("name", [name for name, _ in ERRORS if not name.startswith("Invalid")])
def test_only_what_was_refused_is_explained(browser: Browser, name: str) -> None:
    """The text of the others may be about an id, or an address of the store."""
    text = browser.get(f"raising?name={name}").content.decode()
    assert (CANARY in text) is (name == "ConversationTooLarge")


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("score", '["score"][0] is nan'),
        ("two words", 'state["given"][…] is nan'),
        ('a"]["b', 'state["given"][…] is nan'),
        ("it's [so", 'state["given"][…] is nan'),
        ("\n", 'state["given"][…] is nan'),
        ("k" * 200, 'state["given"][…] is nan'),
    ],
)
def test_keys_that_may_be_text_of_the_client_are_not_repeated(key: str, shown: str) -> None:
    response = Browser("sync").get("keyed", data={"key": key})
    assert response.status_code == 400
    text = response.content.decode()
    assert shown in text
    assert "score" in shown or key not in text.splitlines()[1]


def test_the_log_says_where_it_was_raised(
    browser: Browser, errors: Callable[[], list[str]]
) -> None:
    browser.get("in_view?value=nan")
    browser.get("at_save?value=nan")
    first, second = errors()
    assert "refusals.py, line " in first
    assert "at the save after the view" in second


def test_the_answer_is_in_the_language_of_the_client(browser: Browser) -> None:
    with translation.override("de"):
        text = browser.get("in_view?value=large").content.decode()
    assert text.startswith("Das ist zu groß für Ihr Gespräch.\nThe message takes ")
