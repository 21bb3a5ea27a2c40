"""What was said, as the admin shows it: escaped, logged, whatever shape it has, page by page."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connections
from django.test import Client
from django.utils import translation

from django_convstate import ConversationStore, conversations
from django_convstate.backends.database.admin.contents import read_contents
from django_convstate.backends.database.models import Conversation as Row
from django_convstate.backends.database.models import Message
from tests.support.admin_site import LIST, SEES_ALL, admin_on, looks, page_of, say, shown, staff
from tests.support.databases import ALIASES, statements

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def alias(database: str, settings: Any) -> Iterator[str]:
    with admin_on(database, settings):
        yield database


class TestContents:
    def test_a_look_is_logged(self) -> None:
        url = page_of(say("hello", "hello yourself", title="a secret"))
        client = staff(*SEES_ALL)
        text = shown(client, url)
        assert "hello yourself" in text
        assert '"title": "a secret"' in text
        assert looks() == ["Viewed the state and messages 1 to 2."]
        entry = LogEntry.objects.get()
        assert entry.user.get_username() == "may view_conversation view_contents"
        assert entry.get_edited_object() == Row.objects.get()
        assert "secret" not in entry.object_repr
        history = shown(client, url.replace("change", "history"))
        assert "Viewed the state and messages 1 to 2." in history
        assert "Viewed" not in shown(client, LIST)
        assert shown(client, "/admin/")

    def test_nothing_is_shown_if_it_cannot_be_logged(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        secret = "".join(["hu", "sh"])  # this source is in the report
        url = page_of(say(secret, title=secret, city=secret))
        client = staff(*SEES_ALL)
        client.raise_request_exception = False
        settings.DEBUG = True

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise OSError("no room for it")

        monkeypatch.setattr(LogEntry, "save", refuse)
        response = client.get(url)
        assert response.status_code == 500
        assert "no room for it" in response.text
        assert "log_look" in response.text
        assert secret not in response.text

    def test_looking_prolongs_nothing(self) -> None:
        url = page_of(say("hello"))
        before = Row.objects.values("expires_at", "last_accessed", "version").get()
        shown(staff(*SEES_ALL), url)
        assert Row.objects.values("expires_at", "last_accessed", "version").get() == before

    def test_everything_is_escaped(self) -> None:
        conversation = say(SCRIPT, title=SCRIPT, owner=SCRIPT, **{SCRIPT: [SCRIPT]})
        conversation.messages.extend(
            [
                {"role": SCRIPT, "content": SCRIPT, SCRIPT: SCRIPT, "timestamp": SCRIPT},
                {"type": SCRIPT, "content": [{"type": SCRIPT, "text": SCRIPT}]},
                {"content": {SCRIPT: SCRIPT}},
            ]
        )
        conversation.save()
        client = staff(*SEES_ALL, "delete_conversation")
        url = page_of(conversation)
        for each in (LIST, f"{LIST}?q={SCRIPT}", url, url.replace("change", "delete")):
            assert SCRIPT not in client.get(each).text
        assert client.get(url).text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 10

    def test_messages_of_every_shape_are_shown(self) -> None:
        conversation = conversations.create()
        conversation.messages.extend(
            [
                {"role": "user", "content": "plain text", "timestamp": "2026-11-26T12:00:00Z"},
                {"role": "user", "content": [{"type": "text", "text": "a part"}]},
                {"role": "user", "content": [{"type": "image_url", "image_url": "cat.png"}]},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1"}]},
                {"type": "function_call_output", "output": "from a tool"},
                {"role": 7, "content": 8, "timestamp": "yesterday"},
                {"role": "user", "content": "no zone", "timestamp": "2026-11-26T12:00:00"},
                {"role": "user", "content": "no day", "timestamp": "2026-13-45T12:00:00Z"},
                {"role": "user", "content": "first", "timestamp": "0001-01-01T00:00:00+14:00"},
                {"role": "user", "content": "last", "timestamp": "9999-12-31T23:59:59-14:00"},
                {},
            ]
        )
        conversation.save()
        text = shown(staff(*SEES_ALL), page_of(conversation))
        for each in (
            *("plain text", "Nov. 26, 2026", "a part", "cat.png", "call_1"),
            *("function_call_output", "from a tool", "yesterday", "no zone", "no day"),
            *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
        ):
            assert each in text

    def test_a_conversation_in_which_nothing_was_said(self) -> None:
        text = shown(staff(*SEES_ALL), page_of(say(city="Jaipur")))
        assert "Nothing has been said yet." in text
        assert "Jaipur" in text
        assert looks() == ["Viewed the state and no messages."]

    def test_copies_that_are_empty_hide_nothing(self) -> None:
        """The bytes are what counts. Encryption will leave the copies empty."""
        conversation = say("what was said", title="its title")
        url = page_of(conversation)
        Row.rows.update(title="", state_json=None)
        Message.objects.update(text=None, role="", sent_at=None)
        client = staff(*SEES_ALL)
        text = shown(client, url)
        assert "what was said" in text
        assert '"title": "its title"' in text
        assert f"Conversation {Row.objects.get().pk}" in shown(client, LIST)

    def test_what_is_damaged_is_said_to_be(self) -> None:
        url = page_of(say("hello"))
        Message.objects.all().delete()
        client = staff(*SEES_ALL)
        assert "makes no sense, and was set aside" in shown(client, url)
        assert client.get(url).status_code == 302, "it is not listed any more"
        assert looks() == []

    def test_what_goes_meanwhile_is_said_to_be_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        conversation = say("hello")
        url = page_of(conversation)

        def delete_first(*args: Any) -> Any:
            conversations.delete(conversation.id)
            return read_contents(*args)

        monkeypatch.setattr("django_convstate.backends.database.admin.read_contents", delete_first)
        assert "deleted or has expired meanwhile" in shown(staff(*SEES_ALL), url)
        assert looks() == []

    def test_users_may_be_in_another_database(
        self, alias: str, settings: Any, request: pytest.FixtureRequest
    ) -> None:
        (other,) = {*ALIASES} - {alias}
        request.getfixturevalue(other)
        settings.CONVERSATION_STATE = {"DATABASE_ALIAS": other, "TTL": 600}
        conversation = say("hello", title="elsewhere")
        assert not Row.rows.using(alias).exists()
        client = staff(*SEES_ALL, "delete_conversation")
        assert "elsewhere" in shown(client, LIST)
        url = f"{LIST}{Row.rows.using(other).get().pk}/change/"
        assert "hello" in shown(client, url)
        assert looks() == ["Viewed the state and messages 1 to 1."]
        delete = url.replace("change", "delete")
        assert "Messages: 1" in shown(client, delete)
        assert client.post(delete, {"post": "yes"}).status_code == 302
        assert not conversations.exists(conversation.id)

    def test_in_german(self) -> None:
        with translation.override("de"):
            client = staff(*SEES_ALL)
            assert "Besitzer" in shown(client, LIST)
            text = shown(client, page_of(say("hello")))
        assert "Was gesagt wurde" in text
        assert "Zuletzt gespeichert" in text
        assert LogEntry.objects.get().object_repr.startswith("Gespräch ")

    def test_a_missing_one(self) -> None:
        response = staff(*SEES_ALL).get(f"{LIST}4711/change/")
        assert response.status_code == 302

    def test_that_of_another_prefix(self, alias: str) -> None:
        store = ConversationStore("database", database_alias=alias, key_prefix="tenant")
        conversation = store.create()
        conversation.messages.append("user", "of a tenant")
        conversation.save()
        client = staff(*SEES_ALL, "delete_conversation")
        url = page_of(conversation)
        assert "of a tenant" in shown(client, url)
        client.post(url.replace("change", "delete"), {"post": "yes"})
        assert not store.exists(conversation.id)
        store.purge(everything=True)


class TestPages:
    @pytest.fixture
    def url(self) -> str:
        conversation = conversations.create()
        conversation.messages.extend({"role": "user", "content": f"[{n}]"} for n in range(1, 121))
        conversation.save()
        return page_of(conversation)

    def numbers(self, client: Client, url: str, **query: str) -> list[int]:
        return [int(n) for n in re.findall(r"\[(\d+)\]", shown(client, url, **query))]

    def test_one_leads_to_the_next(self, url: str) -> None:
        client = staff(*SEES_ALL)
        assert self.numbers(client, url) == list(range(71, 121))
        assert self.numbers(client, url, before="70") == list(range(21, 71))
        assert self.numbers(client, url, before="20") == list(range(1, 21))
        assert looks() == [
            f"Viewed the state and messages {each}."
            for each in ("71 to 120", "21 to 70", "1 to 20")
        ]
        links = re.findall(r'href="\?([^"]*before=\d+[^"]*|)"', client.get(url).text)
        assert set(links) == {"before=70"}
        first = client.get(url, {"before": "70", "_changelist_filters": "q=x"}).text
        for before in ("20", "120"):
            assert f'href="?before={before}&amp;_changelist_filters=q%3Dx"' in first

    def test_whatever_the_address_says(self, url: str) -> None:
        client = staff(*SEES_ALL)
        assert self.numbers(client, url, before="0") == [1]
        for before in ("120", "121", "9" * 30, "9" * 5000, "", "-5", "x", "\u0663", "1e3"):
            assert self.numbers(client, url, before=before) == list(range(71, 121)), before

    def test_positions_count_those_that_were_dropped(self, settings: Any) -> None:
        settings.CONVERSATION_STATE |= {"MAX_MESSAGES": 60, "WHEN_FULL": "drop_oldest"}
        conversation = conversations.create()
        for start in (1, 41):
            numbers = range(start, start + 40)
            conversation.messages.extend({"role": "user", "content": f"[{n}]"} for n in numbers)
            conversation.save()
        client = staff(*SEES_ALL)
        url = page_of(conversation)
        assert self.numbers(client, url) == list(range(31, 81))
        assert self.numbers(client, url, before="30") == list(range(21, 31))
        assert self.numbers(client, url, before="5") == [21]
        assert "21 to 30 of 80" in shown(client, url, before="30")

    def test_a_page_of_many_messages_reads_no_more_than_it_shows(self, alias: str) -> None:
        conversation = conversations.create()
        conversation.messages.extend({"role": "user", "content": "x"} for _ in range(2000))
        conversation.save()
        client, url = staff(*SEES_ALL, "delete_conversation"), page_of(conversation)
        read = count_rows(alias, lambda: shown(client, url, before="1000"))
        assert read <= 102, "a page, and the newest"
        with statements(alias) as sent:
            shown(client, url, before="1000")
        assert len(sent) <= 12
        text = shown(client, url.replace("change", "delete"))
        assert "messages: 2000" in text.lower()
        read = count_rows(alias, lambda: shown(client, url.replace("change", "delete")))
        assert read == 0


def count_rows(alias: str, look: Callable[[], object]) -> int:
    """Return how many messages are read meanwhile."""
    read = 0

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal read
        if sql.startswith("SELECT") and f'FROM "{Message._meta.db_table}"' in sql:
            execute(f"SELECT COUNT(*) FROM ({sql}) found", params, many, context)
            read += context["cursor"].fetchone()[0]
        return execute(sql, params, many, context)

    with connections[alias].execute_wrapper(note):
        look()
    return read
