"""A message that is made of a stream."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest

from django_convstate import (
    ConversationStore,
    ConversationTooLarge,
    InvalidConversationValue,
    conversations,
)
from django_convstate.conversation.message import encode_message
from django_convstate.conversation.streamed import MADE_ID
from django_convstate.exceptions import InvalidConversationType


class Source:
    """Chunks that know whether they have been closed."""

    def __init__(self, chunks: Iterable[Any]) -> None:
        self.chunks = iter(chunks)
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self.chunks)

    def close(self) -> None:
        self.closed += 1


class AsyncSource:
    def __init__(self, chunks: Iterable[Any]) -> None:
        self.chunks = iter(chunks)
        self.closed = 0

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        for chunk in self.chunks:
            return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


class Streamed:
    """What `messages.stream` makes of `chunks`, of which `read` are read before it is closed."""

    def __init__(
        self, way: str, chunks: Iterable[Any], read: int | None = None, **options: Any
    ) -> None:
        extra = options.pop("extra", {})
        self.conversation = ConversationStore("locmem", **options).create()
        self.messages = self.conversation.messages
        self.passed: list[str] = []
        self.error: Exception | None = None
        self.source: Any = Source(chunks) if way == "sync" else AsyncSource(chunks)
        stream = self.messages.stream("assistant", self.source, **extra)
        try:
            asyncio.run(self._aread(stream, read)) if way == "async" else self._read(stream, read)
        except Exception as error:
            self.error = error

    def _read(self, stream: Any, count: int | None) -> None:
        for chunk in stream:
            self.passed.append(chunk)
            if len(self.passed) == count:
                break
        stream.close()

    async def _aread(self, stream: Any, count: int | None) -> None:
        async for chunk in stream:
            self.passed.append(chunk)
            if len(self.passed) == count:
                break
        await stream.aclose()


class TestAnswer:
    def test_chunks_become_one_message(self, way: str) -> None:
        streamed = Streamed(way, ["a", "", "b"], extra={"model": "m"})
        assert streamed.passed == ["a", "", "b"]
        (message,) = streamed.messages
        fields = message.copy()
        assert fields.pop("timestamp")
        assert fields.pop("id") == message.id
        assert fields == {"role": "assistant", "content": "ab", "model": "m"}
        assert streamed.source.closed == 1

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_a_closed_stream_keeps_what_was_read_as_interrupted(self, way: str, count: int) -> None:
        streamed = Streamed(way, ["a", "b", "c"], count)
        (message,) = streamed.messages
        assert (message["content"], message["interrupted"]) == ("abc"[:count], True)
        assert streamed.source.closed == 1

    @pytest.mark.parametrize("chunks", [[], [""], ["", ""]])
    def test_a_stream_without_text_is_no_message(self, way: str, chunks: list[str]) -> None:
        streamed = Streamed(way, chunks)
        assert streamed.passed == chunks
        assert len(streamed.messages) == 0
        assert not streamed.conversation.is_modified

    @pytest.mark.parametrize("chunk", [None, b"b", 1, ["b"], {"text": "b"}])
    def test_a_chunk_that_is_no_text_ends_the_stream(self, way: str, chunk: object) -> None:
        streamed = Streamed(way, ["a", chunk, "c"])
        assert isinstance(streamed.error, InvalidConversationType)
        assert f"Chunk 1 of a stream is of type {type(chunk).__name__}" in str(streamed.error)
        assert streamed.passed == ["a"]
        (message,) = streamed.messages
        assert (message["content"], message["interrupted"]) == ("a", True)
        assert streamed.source.closed == 1

    def test_a_chunk_that_is_no_utf8_ends_the_stream(self, way: str) -> None:
        streamed = Streamed(way, ["a", "\ud83d"])
        assert isinstance(streamed.error, InvalidConversationValue)
        assert streamed.messages[0]["content"] == "a"

    @pytest.mark.parametrize(
        ("chunks", "passed"),
        [
            (["a\ud83d", "\ude00b"], ["a", "😀b"]),
            (["\ud83d", "\ude00"], ["😀"]),
            (["\ud83d", "", "\ude00"], ["", "😀"]),
            (["a\ud83d", "\ude00\ud83d", "\ude01"], ["a", "😀", "😁"]),
        ],
    )
    def test_half_a_character_waits_for_its_other_half(
        self, way: str, chunks: list[str], passed: list[str]
    ) -> None:
        streamed = Streamed(way, chunks)
        assert streamed.error is None
        assert streamed.passed == passed
        (message,) = streamed.messages
        assert message["content"] == "".join(passed)
        assert "interrupted" not in message
        streamed.conversation.save()

    @pytest.mark.parametrize(
        "chunks",
        [
            ["a", "b\ud83d"],
            ["a", "b\ud83d", ""],
            ["ab\ud83d", "c"],
            ["ab\ud83d", "\ud83d\ude00"],
            ["ab\ud83d", b"b"],
            ["ab", "\ude00"],
        ],
    )
    def test_half_a_character_alone_ends_the_stream(self, way: str, chunks: list[Any]) -> None:
        streamed = Streamed(way, chunks)
        assert isinstance(streamed.error, InvalidConversationValue)
        assert "".join(streamed.passed) == "ab"
        (message,) = streamed.messages
        assert (message["content"], message["interrupted"]) == ("ab", True)
        assert streamed.source.closed == 1
        streamed.conversation.save()

    def test_a_stream_closed_between_two_halves_keeps_what_came_before(self, way: str) -> None:
        streamed = Streamed(way, ["ab\ud83d", "\ude00c"], 1)
        assert streamed.error is None
        (message,) = streamed.messages
        assert (message["content"], message["interrupted"]) == ("ab", True)

    @pytest.mark.parametrize("letter", ["a", '"', "ä", "\n", "😀", "\x00"])
    @pytest.mark.parametrize("size", [1, 7, 300])
    def test_a_stream_that_grows_too_large_is_cut(self, way: str, letter: str, size: int) -> None:
        streamed = Streamed(way, [letter * size] * (900 // size), max_message_bytes=400)
        assert isinstance(streamed.error, ConversationTooLarge)
        (message,) = streamed.messages
        kept, passed = message["content"], "".join(streamed.passed)
        assert message["interrupted"] is True
        assert passed.startswith(kept)
        assert len(streamed.passed) < 900 // size, "an endless one has an end"
        extra = {k: v for k, v in message.items() if k not in ("role", "content", "id")}
        encoded = encode_message(message["role"], kept, message.id, extra)
        larger = encode_message(message["role"], kept + letter, message.id, extra)
        assert len(encoded) <= 400 < len(larger)
        assert streamed.source.closed == 1

    def test_a_stream_that_just_fits_is_kept_whole(self, way: str) -> None:
        limit = len(encode_message("assistant", "a" * 100, MADE_ID, {}))
        assert Streamed(way, ["a"] * 100, max_message_bytes=limit).error is None
        streamed = Streamed(way, ["a"] * 101, max_message_bytes=limit)
        assert isinstance(streamed.error, ConversationTooLarge)
        assert len(streamed.passed) == 101

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            (lambda messages: messages.stream("", ["a"]), InvalidConversationType),
            (lambda messages: messages.stream("assistant", 5), InvalidConversationType),
            (lambda messages: messages.stream("assistant", None), InvalidConversationType),
            (lambda messages: messages.stream("assistant", [], at={1}), InvalidConversationType),
            (lambda messages: messages.stream("assistant", [], content="a"), TypeError),
            (lambda messages: messages.stream("a", [], b="b" * 70_000), ConversationTooLarge),
        ],
    )
    def test_bad_arguments_are_refused_before_the_stream_begins(
        self, call: Any, error: Any
    ) -> None:
        with pytest.raises(error):
            call(conversations.create().messages)

    def test_a_stream_is_refused_if_there_is_no_room_for_its_message(self) -> None:
        messages = ConversationStore("locmem", max_messages=1).create().messages
        messages.append("user", "hello")
        with pytest.raises(ConversationTooLarge, match="MAX_MESSAGES is 1"):
            messages.stream("assistant", ["a"])

    def test_two_streams_side_by_side_make_two_messages(self) -> None:
        messages = conversations.create().messages
        one, two = messages.stream("one", ["a", "b"]), messages.stream("two", ["c", "d"])
        for chunks in zip(one, two, strict=True):
            assert len(chunks) == 2
        assert sorted((m["role"], m["content"]) for m in messages) == [("one", "ab"), ("two", "cd")]

    def test_a_cancelled_stream_keeps_what_was_read_as_interrupted(self) -> None:
        messages = conversations.create().messages

        async def chunks() -> AsyncIterator[str]:
            yield "a"
            await asyncio.sleep(60)

        async def read() -> None:
            async for _ in messages.stream("assistant", chunks()):
                pass

        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(read(), 0.1))
        (message,) = messages
        assert (message["content"], message["interrupted"]) == ("a", True)


class TestFinish:
    """Fields that are known only when a stream has ended."""

    def test_its_fields_are_of_the_message(self, way: str) -> None:
        usage = {"usage": {"output_tokens": 2}, "first_token_ms": 312.5}
        extra = {"model": "m", "finish": lambda: usage}
        streamed = Streamed(way, ["hello ", "you"], extra=extra)
        message = streamed.messages[-1]
        assert message["content"] == "hello you"
        assert {**usage, "model": "m"}.items() <= message.items()

    def test_it_is_called_once_after_the_last_chunk(self, way: str) -> None:
        seen: list[int] = []

        def finish() -> dict[str, Any]:
            seen.append(len(streamed_so_far))
            return {"chunks": len(streamed_so_far)}

        streamed_so_far: list[str] = []

        def chunks() -> Iterator[str]:
            for text in "abc":
                streamed_so_far.append(text)
                yield text

        streamed = Streamed(way, chunks(), extra={"finish": finish})
        assert seen == [3]
        assert streamed.messages[-1]["chunks"] == 3

    def test_an_interrupted_message_has_what_is_known_by_then(self, way: str) -> None:
        extra = {"finish": lambda: {"first_token_ms": 312}}
        streamed = Streamed(way, ["hello ", "you"], read=1, extra=extra)
        message = streamed.messages[-1]
        assert message["content"] == "hello "
        assert message["interrupted"] is True
        assert message["first_token_ms"] == 312

    def test_without_text_there_is_nothing_to_finish(self, way: str) -> None:
        called: list[bool] = []

        def finish() -> dict[str, Any]:
            called.append(True)
            return {}

        assert not len(Streamed(way, [], extra={"finish": finish}).messages)
        assert called == []

    @pytest.mark.parametrize("length", [*range(760, 1000), 5000])
    def test_it_costs_no_word_of_a_message_that_fits(self, way: str, length: int) -> None:
        extra = {"finish": lambda: {"usage": {"output_tokens": 2}}}
        streamed = Streamed(way, ["x" * length], extra=extra, max_message_bytes=1000)
        without = Streamed(way, ["x" * length], max_message_bytes=1000)
        (message,) = streamed.messages
        if without.error is None:
            assert streamed.error is None
            assert message["content"] == "x" * length
        else:
            assert message["interrupted"] is True
            assert message["usage"] == {"output_tokens": 2}

    @pytest.mark.parametrize(
        "finish",
        [
            lambda: 1 / 0,
            lambda: None,
            lambda: "usage",
            lambda: {"usage": object()},
            lambda: {1: "a key that is no string"},
            lambda: {"cost": float("nan")},
            lambda: {"content": "another"},
            lambda: {"id": "another"},
            lambda: {"usage": "x" * 90_000},
            "not callable",
        ],
    )
    @pytest.mark.parametrize("read", [None, 1])
    def test_what_goes_wrong_in_it_loses_no_message(
        self, way: str, finish: Any, read: int | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        streamed = Streamed(way, ["hello ", "you"], read=read, extra={"finish": finish, "n": 1})
        assert streamed.error is None
        (message,) = streamed.messages
        assert message["content"] == ("hello you" if read is None else "hello ")
        assert message["n"] == 1
        assert not {"usage", "cost"} & message.keys()
        (record,) = (r for r in caplog.records if r.levelno == logging.ERROR)
        assert "kept" in record.getMessage()


def test_two_people_rate_two_messages_and_two_fields_of_one() -> None:
    conversation = conversations.create()
    ids = [conversation.messages.append("assistant", text) for text in ("one", "two")]
    conversation.save()
    ada, bob = (conversations.get(conversation.id) for _ in range(2))
    ada.messages.update(ids[0], feedback="up")
    bob.messages.update(ids[0], comment="well said")
    bob.messages.update(ids[1], feedback="down")
    ada.save()
    bob.save()
    one, two = conversations.get(conversation.id).messages
    assert (one["feedback"], one["comment"], one["content"]) == ("up", "well said", "one")
    assert two["feedback"] == "down"
    assert ada.messages[0]["feedback"] == bob.messages[0]["feedback"] == "up"
