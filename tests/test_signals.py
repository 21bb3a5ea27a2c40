"""Signals: when they are sent, and that a receiver cannot break a save."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.dispatch import Signal

from django_convstate import (
    conversations,
    signals,
)


class TestSignals:
    @pytest.fixture
    def heard(self) -> Iterator[list[tuple[str, str]]]:
        heard: list[tuple[str, str]] = []

        def listen(signal: Any, sender: Any, **kwargs: Any) -> None:
            name = next(name for name, value in vars(signals).items() if value is signal)
            heard.append((name, kwargs.get("id") or kwargs["conversation"].id))

        every = [s for s in vars(signals).values() if isinstance(s, Signal)]
        for signal in every:
            signal.connect(listen)
        yield heard
        for signal in every:
            signal.disconnect(listen)

    def test_signals_are_sent_for_created_saved_and_deleted(
        self, heard: list[tuple[str, str]]
    ) -> None:
        conversation = conversations.create()
        conversation.save()
        assert heard == []
        conversation["a"] = 1
        conversation.save()
        conversation["a"] = 2
        conversation.save()
        id = conversation.id
        conversations.delete(id)
        conversations.delete(id)
        assert heard == [
            ("conversation_created", id),
            ("conversation_saved", id),
            ("conversation_saved", id),
            ("conversation_deleted", id),
        ]

    def test_a_receiver_that_fails_changes_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        def fail(**kwargs: Any) -> None:
            raise RuntimeError("a receiver's own trouble")

        signals.conversation_saved.connect(fail)
        try:
            with caplog.at_level(logging.CRITICAL, "django.dispatch"):
                conversation = conversations.create()
                conversation["a"] = 1
                conversation.save()
        finally:
            signals.conversation_saved.disconnect(fail)
        assert conversations.get(conversation.id)["a"] == 1
