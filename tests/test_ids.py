"""Ids: which are accepted, how they are made, and that they are kept out of logs."""

from typing import Any, ClassVar

import pytest

from django_convstate import (
    Conversation,
    InvalidConversationId,
    conversations,
)
from django_convstate.backends.records import Change
from tests.support.backends import CountingBackend, record_of


class TestIds:
    BAD: ClassVar = [
        "",
        "x" * 10_000,
        "a\r\nb",
        "a\x00b",
        "{a}",
        "a*",
        "a?",
        "[a]",
        "../a",
        "a/b",
        "ａｂｃ",  # noqa: RUF001 - fullwidth twins of abc
        "a\ud800",
        "é",
        " a",
        "a b",
        ".a",
        "a\n",
        5,
        None,
        b"a",
    ]

    @pytest.mark.parametrize("id", BAD)
    def test_a_bad_id_never_reaches_the_backend(self, id: Any, settings: Any) -> None:
        settings.CONVERSATION_STATE_BACKEND = "tests.support.backends.CountingBackend"
        CountingBackend.calls.clear()
        for use in ("get", "open", "exists", "delete", "touch"):
            with pytest.raises(InvalidConversationId):
                getattr(conversations, use)(id)
        assert not CountingBackend.calls

    def test_no_error_repeats_the_id(self) -> None:
        with pytest.raises(InvalidConversationId) as caught:
            conversations.get("secret/secret")
        assert "secret" not in str(caught.value)

    def test_ids_are_made_of_128_random_bits(self) -> None:
        made = {conversations.create().id for _ in range(1000)}
        assert len(made) == 1000
        assert {len(id) for id in made} == {22}
        assert not [id for id in made if id.startswith("-")], "it would look like an option"

    def test_neither_repr_nor_log_tells_secrets(
        self, saved: Conversation, caplog: pytest.LogCaptureFixture
    ) -> None:
        saved.claim("an owner")
        record = record_of(conversations.backend, saved.id)
        (summary,) = conversations.list()
        change = Change(
            set={"city": b"Jaipur"}, append=[("message 2", b"message 1")], owner="an owner"
        )
        for shown in (repr(saved), repr(saved.messages), repr(record), repr(summary), repr(change)):
            for secret in (saved.id, "Jaipur", "message 1", "message 2", "an owner", saved.token):
                assert secret not in shown
        assert caplog.text == ""
