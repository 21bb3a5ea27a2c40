"""Streams: through Django's test clients, and through its handlers, driven by hand up to the point
where the client goes away. `tests/http/test_servers.py` does the same with real ones."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
from django.http import StreamingHttpResponse
from django.test import Client, RequestFactory

from django_convstate import (
    InvalidConversationValue,
    conversations,
)
from django_convstate.middleware import ConversationMiddleware
from tests.support.servers import wait_until
from tests.support.streams import model, text
from tests.support.visits import WORDS, Visit, check_kept, stored, wsgi

pytestmark = pytest.mark.urls("tests.support.streams")


class TestAtItsEnd:
    @pytest.mark.parametrize("view", ["answer", "sse"])
    def test_a_stream_is_saved_at_its_end(self, way: str, view: str) -> None:
        visit = Visit(way, view)
        (before,) = visit.before
        assert before.message_count == 1, "so that the token of a newcomer is good"
        assert visit.error is None
        check_kept(text(WORDS), interrupted=False)
        assert stored().version == 2
        if view == "answer":
            assert visit.content == text(WORDS)
        else:
            assert stored()["events"] == WORDS
        again = Visit(way, view, visit.response.cookies)
        assert again.before[0].version == 2
        assert stored().version == 3

    def test_the_cookie_is_sent_before_the_stream(self, way: str) -> None:
        first = Visit(way, "answer")
        assert first.response.headers["Cache-Control"] == "private"
        assert first.response.headers["Vary"] == "Cookie"
        second = Visit(way, "answer", first.response.cookies)
        assert second.response.cookies == {}
        assert len(stored().messages) == 4

    def test_a_conversation_first_used_inside_the_stream_is_saved(
        self, way: str, errors: Callable[[], list[str]]
    ) -> None:
        first = Visit(way, "answer")
        Visit(way, "late", first.response.cookies)
        assert stored()["late"] == 1
        assert errors() == []

    def test_which_is_private_if_the_request_presents_one(self, way: str) -> None:
        """Its headers are sent before it is used."""
        first = Visit(way, "answer")
        second = Visit(way, "late", first.response.cookies)
        assert second.response.headers["Cache-Control"] == "private"
        assert second.response.headers["Vary"] == "Cookie"
        assert second.response.cookies == {}

    def test_a_stream_for_nobody_is_for_all(self, way: str) -> None:
        response = Visit(way, "late", read=0).response
        assert "Cache-Control" not in response.headers
        assert "Vary" not in response.headers

    def test_a_newcomers_conversation_first_used_inside_the_stream_is_logged(
        self, way: str, errors: Callable[[], list[str]]
    ) -> None:
        visit = Visit(way, "late")
        assert stored()["late"] == 1
        assert visit.response.cookies == {}
        (line,) = errors()
        assert "Use `request.conversation` in the view" in line
        assert stored().id not in line

    def test_a_conversation_assigned_inside_the_stream_is_saved_and_logged(
        self, way: str, errors: Callable[[], list[str]]
    ) -> None:
        Visit(way, "another")
        kept = [dict(conversations.get(summary.id)) for summary in conversations.list()]
        assert sorted(kept, key=repr) == [{"first": True}, {"second": True}]
        assert len(errors()) == 1, "the client has the token of the other"

    @pytest.mark.parametrize(("status", "saved"), [(404, True), (500, False), (503, False)])
    def test_a_stream_is_saved_below_500(self, way: str, status: int, saved: bool) -> None:
        visit = Visit(way, f"failed?status={status}")
        assert len(list(conversations.list())) == saved
        assert bool(visit.response.cookies) is saved

    def test_a_stream_that_only_reads_stores_nothing(self, way: str) -> None:
        visit = Visit(way, "look")
        assert visit.content == "0"
        assert list(conversations.list()) == []

    def test_an_answer_read_by_half_is_saved_as_interrupted(self, way: str) -> None:
        Visit(way, "half")
        (message,) = stored().messages
        assert (message["content"], message["interrupted"]) == (text(1), True)

    def test_an_error_of_the_save_breaks_off_the_stream(
        self, way: str, errors: Callable[[], list[str]]
    ) -> None:
        visit = Visit(way, "bad_value", Visit(way, "answer").response.cookies)
        assert isinstance(visit.error, InvalidConversationValue)
        assert visit.content == text(WORDS)
        (line,) = errors()
        assert 'state["list"][0] is nan' in line

    @pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
    def test_an_iterator_that_django_converts_is_saved(self, way: str) -> None:
        assert Visit(way, "mixed").content == text(WORDS)
        check_kept(text(WORDS), interrupted=False)

    @pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
    def test_a_failing_iterator_that_django_converts_is_saved_as_interrupted(
        self, way: str
    ) -> None:
        assert isinstance(Visit(way, "mixed?fail=3").error, RuntimeError)
        check_kept(text(3), interrupted=True)

    def test_a_compressed_stream_is_saved(self, way: str, settings: Any) -> None:
        settings.MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", *settings.MIDDLEWARE]
        visit = Visit(way, "answer", headers={"accept-encoding": "gzip"})
        assert visit.response.headers["Content-Encoding"] == "gzip"
        check_kept(text(WORDS), interrupted=False)


class TestLeftAlone:
    @pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
    def test_a_file_is_left_alone(self, way: str) -> None:
        visit = Visit(way, "file")
        assert b"Views that stream" in b"".join(visit.parts)
        assert "Cache-Control" not in visit.response.headers

    def test_a_file_keeps_the_file_wrapper_of_wsgi(self) -> None:
        def wrapper(file: Any, size: int) -> Any:
            file.wrapped = size
            return file

        environ = RequestFactory().get("/sync/file?touch").environ | {"wsgi.file_wrapper": wrapper}
        body = wsgi(environ)
        assert body.wrapped
        assert stored()["file"] is True
        body.close()

    def test_a_stream_that_does_not_touch_it_is_left_alone(self, way: str) -> None:
        visit = Visit(way, "ignore")
        assert visit.content == text(WORDS)
        assert visit.response.cookies == {}
        assert "Cache-Control" not in visit.response.headers
        assert list(conversations.list()) == []


class TestBrokenOff:
    @pytest.mark.parametrize("view", ["answer", "sse"])
    @pytest.mark.parametrize("count", range(WORDS + 1))
    def test_a_stream_closed_by_the_client_is_saved_as_interrupted(
        self, way: str, view: str, count: int
    ) -> None:
        Visit(way, view, read=count)
        check_kept(text(count), interrupted=True)
        assert stored().version == (2 if count else 1)

    @pytest.mark.parametrize("view", ["answer", "sse"])
    @pytest.mark.parametrize("count", range(WORDS))
    def test_a_stream_whose_model_fails_is_saved_as_interrupted(
        self, way: str, view: str, count: int
    ) -> None:
        visit = Visit(way, f"{view}?fail={count}")
        assert str(visit.error) == "the model's own trouble"
        check_kept(text(count), interrupted=True)

    def test_an_error_of_the_save_does_not_hide_why(
        self, way: str, errors: Callable[[], list[str]]
    ) -> None:
        visit = Visit(way, "bad_value?fail=2", Visit(way, "answer").response.cookies)
        assert str(visit.error) == "the model's own trouble"
        assert len(errors()) == 1

    def test_a_stream_that_wsgi_never_begins_keeps_the_question(self) -> None:
        environ = RequestFactory().get("/sync/answer").environ
        wsgi(environ).close()
        check_kept("", interrupted=False)

    @pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
    def test_an_async_stream_that_wsgi_never_begins_keeps_the_question(self) -> None:
        response = Client().get("/sync/mixed")
        response.close()
        check_kept("", interrupted=False)

    def test_a_sync_stream_that_is_dropped_is_saved(self) -> None:
        """By a middleware that sends another response, and closes nothing."""
        request = RequestFactory().get("/")

        def view(request: Any) -> StreamingHttpResponse:
            request.conversation.messages.append("user", "hello")
            request.conversation.save()
            request.conversation.messages.append("user", "anybody?")
            return StreamingHttpResponse(model(request))

        response = ConversationMiddleware(view)(request)
        del response, request
        gc.collect()
        wait_until(lambda: len(stored().messages) == 2)
