"""Ids: which are accepted, how they are made, and that they are kept out of logs."""

import os
import subprocess
import sys
import textwrap
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_processes_make_different_ids_of_messages() -> None:
    """Also where the project has seeded the module `random`, as those of models do."""
    script = textwrap.dedent(
        """
        import os, random
        from django_convstate.ids import next_message_id

        random.seed(1)
        for _ in range(3):
            if os.fork() == 0:
                random.seed(1)
                os.write(1, b"%d " % (next_message_id(0, b"") % 2**32))
                os._exit(0)
            os.wait()
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert len(set(result.stdout.split())) == 3
