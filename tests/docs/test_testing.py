"""docs/testing.md does what it says: its tests are run, against a small chat."""

import inspect
import tomllib
import unittest
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.http import HttpResponse, JsonResponse
from django.test import AsyncClient, Client
from django.urls import path

import _django_convstate_pytest
from django_convstate.testing import empty_store
from tests.support.docs import ROOT, blocks

PAGE = (ROOT / "docs/testing.md").read_text()


def chat(request: Any) -> HttpResponse:
    conversation = request.conversation
    text = request.POST["text"]
    if " in " in text:
        conversation["city"] = text.rpartition(" ")[2]
    conversation.messages.append("user", text)
    conversation.incr("turns")
    answer = f"You are in {conversation.get('city', 'some place')}."
    conversation.messages.append("assistant", answer)
    return JsonResponse({"answer": answer})


urlpatterns = [path("chat", chat)]


@pytest.fixture(autouse=True)
def _chat(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


def defined() -> dict[str, Any]:
    """What the blocks define, all of which can be in one file."""
    names: dict[str, Any] = {"__name__": "test_chat"}
    for block in blocks(PAGE, "python"):
        exec(compile(block, "docs/testing.md", "exec"), names)
    return names


TESTS = {name: value for name, value in defined().items() if name.startswith("test_")}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", TESTS)
def test_a_function_of_the_page_passes(name: str, django_user_model: Any) -> None:
    fixtures = {
        "client": Client(),
        "async_client": AsyncClient(),
        "django_user_model": django_user_model,
    }
    test = TESTS[name]
    wanted = {each: fixtures[each] for each in inspect.signature(test).parameters}
    with empty_store():
        (async_to_sync(test) if inspect.iscoroutinefunction(test) else test)(**wanted)


@pytest.mark.django_db
def test_the_class_of_the_page_passes() -> None:
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(defined()["ChatTest"])
    assert suite.countTestCases() == 1
    case: Any = next(iter(suite))
    case.client = Client()
    result = unittest.TestResult()
    case.run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])


def test_the_page_has_tests_of_all_that_it_names() -> None:
    assert len(TESTS) == 8
    source = "\n".join(blocks(PAGE, "python"))
    for name in ("seed(", "clock.move(", "clock.ahead(", "assert_store_calls(", "store_away()"):
        assert name in source


def test_the_fixture_is_that_of_the_plugin() -> None:
    (block,) = blocks(PAGE, "toml")
    (name,) = tomllib.loads(block)["tool"]["pytest"]["ini_options"]["usefixtures"]
    assert hasattr(_django_convstate_pytest, name)
