"""The admin of conversations: the list, who may see and do what, and deletion."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import DELETION, LogEntry
from django.db.models import CASCADE, PROTECT
from django.test import Client

from django_convstate import ConversationInterrupted, conversations
from django_convstate.backends.database.models import Conversation as Row
from django_convstate.backends.database.models import Message
from django_convstate.signals import conversation_deleted
from tests.support.admin_site import (
    DELETES,
    LIST,
    SEES_ALL,
    SEES_LIST,
    admin_on,
    looks,
    page_of,
    say,
    shown,
    staff,
)
from tests.support.databases import statements
from tests.support.host.models import Ticket


@pytest.fixture(autouse=True)
def alias(database: str, settings: Any) -> Iterator[str]:
    with admin_on(database, settings):
        yield database


class TestList:
    def test_it_has_title_owner_messages_size_and_times(self) -> None:
        say("hello", "hello yourself", owner="olga", title="A trip to Jaipur")
        row = Row.objects.get()
        html = staff(*SEES_ALL).get(LIST).text
        for column, text in {
            "title_or_number": "A trip to Jaipur",
            "owner": "olga",
            "message_count": "2",
            "size": f"{row.state_size + row.messages_size}\xa0bytes",
        }.items():
            cell = re.search(rf'class="field-{column}[^>]*>(.*?)</t[dh]>', html)
            assert cell, column
            assert re.sub("<[^>]*>", "", cell[1]) == text
        assert 'class="field-modified_at' in html

    def test_newest_saved_first(self) -> None:
        first, *others = [say("hello", title=f"number {n}") for n in range(3)]
        first.messages.append("user", "again")
        first.save()
        text = shown(staff(*SEES_ALL), LIST)
        places = [text.index(each["title"]) for each in (first, *reversed(others))]
        assert places == sorted(places)

    @pytest.mark.parametrize("column", range(5))
    def test_every_column_is_sorted(self, column: int) -> None:
        for text in ("a", "bb", "ccc"):
            say(text, owner=text, title=text)
        client = staff(*SEES_ALL)
        order = re.findall(r"\b(a|bb|ccc) \1\b", shown(client, LIST, o=str(column)))
        back = re.findall(r"\b(a|bb|ccc) \1\b", shown(client, LIST, o=f"-{column}"))
        assert len(order) == 3
        if column != 2:  # of which all have as many
            assert order == back[::-1]

    def test_only_what_is_stored_is_listed(self) -> None:
        gone = say("hello", title="deleted")
        gone.delete()
        kept = say("hello", title="kept")
        damaged = say("hello", title="damaged")
        Row.rows.filter(key=damaged.id).update(quarantined="x")
        text = shown(staff(*SEES_ALL), LIST)
        assert "kept" in text
        assert "1 conversation" in text
        assert kept.id not in text

    def test_filters(self) -> None:
        say("hello", owner="olga", title="of olga")
        conversation = conversations.create(ttl=3 * 86400)
        conversation["title"] = "of nobody"
        conversation.save()
        client = staff(*SEES_ALL)
        for query, expected in (
            ({"owner__isempty": "1"}, {"of nobody"}),
            ({"owner__isempty": "0"}, {"of olga"}),
            ({"expiry": "day"}, {"of olga"}),
            ({"expiry": "week"}, {"of olga", "of nobody"}),
            ({"expiry": "month"}, {"of olga", "of nobody"}),
            ({"expiry": "never"}, set()),
            ({"expiry": "nonsense"}, {"of olga", "of nobody"}),
            ({"modified_at__year": "2001"}, set()),
            ({"prefix": "convstate"}, {"of olga", "of nobody"}),
            ({"prefix": "tenant"}, set()),
        ):
            text = shown(client, LIST, **query)
            assert {title for title in ("of olga", "of nobody") if title in text} == expected, query

    def test_hundred_rows_cost_as_many_statements_as_one(self, alias: str) -> None:
        client = staff(*SEES_ALL)
        say("hello", owner="0")
        shown(client, LIST)  # permissions, content types and the like
        with statements(alias) as one:
            shown(client, LIST)
        for number in range(99):
            say("hello", owner=str(number))
        with statements(alias) as hundred:
            text = shown(client, LIST)
        assert "100 conversations" in text
        assert len(hundred) == len(one) <= 8
        assert not any('"state_json"' in sql or '"commits"' in sql for sql in hundred)


class TestSearch:
    def test_by_id_owner_title_and_words(self) -> None:
        jaipur = say("Is there a train?", owner="olga", title="Jaipur")
        say("Is there a bus?", owner="omar", title="Delhi")
        client = staff(*SEES_ALL)
        for term in (jaipur.id, "olga", "jaip", "train", "JAIPUR"):
            text = shown(client, LIST, q=term)
            assert ("Jaipur" in text, "Delhi" in text) == (True, False), term
        assert "0 conversations" in shown(client, LIST, q="boat")
        assert "2 conversations" in shown(client, LIST, q="there")

    def test_it_says_nothing_of_contents_to_who_may_not_see_them(self) -> None:
        jaipur = say("Is there a train?", owner="olga", title="Jaipur")
        client = staff(*SEES_LIST)
        for term in (jaipur.id, "olga"):
            assert re.search(r"\b1 conversation\b", shown(client, LIST, q=term))
        for term in ("Jaipur", "train"):
            assert "0 conversations" in shown(client, LIST, q=term)

    def test_nothing_that_is_searched_for_breaks_it(self) -> None:
        say("hello")
        client = staff(*SEES_ALL)
        for term in ("\0", "'", "%", "a" * 5000, "(", '"', "\\", " ", "\u2603"):
            assert client.get(LIST, {"q": term}).status_code == 200, term


class TestPermissions:
    def test_a_visitor_is_asked_to_log_in(self) -> None:
        for url in (LIST, page_of(say("hello"))):
            assert "/admin/login/" in Client().get(url).headers["Location"]

    @pytest.mark.parametrize("may", [(), ("view_contents",), ("delete_conversation",)])
    def test_without_the_permission_to_view_there_is_nothing(self, may: tuple[str, ...]) -> None:
        url = page_of(say("a secret", title="a secret"))
        client = staff(*may)
        for each in (LIST, url, url.replace("change", "history")):
            response = client.get(each)
            assert response.status_code == 403
            assert "secret" not in response.text
        assert looks() == []

    def test_the_list_alone_tells_nothing_of_contents(self) -> None:
        conversation = say("hush", title="hush", owner="olga", city="hush")
        client = staff(*SEES_LIST)
        url = page_of(conversation)
        for each in (LIST, url, url.replace("change", "history"), "/admin/"):
            assert "hush" not in client.get(each).text
        text = shown(client, url)
        assert "You do not have permission to see what was said." in text
        assert "olga" in text
        assert conversation.id in text
        assert looks() == []

    def test_nor_do_lookups_in_the_address(self) -> None:
        say("hush", title="hush", city="hush")
        client = staff(*SEES_LIST)
        for lookup in (
            *("title", "title__startswith", "state_json__city", "state_json__icontains", "state"),
            *("messages__text__contains", "messages__role", "messages", "commits", "last_key"),
            *("tickets__subject", "leases", "cursor", "moved_to", "__title", "no_such_field"),
        ):
            assert client.get(LIST, {lookup: "hush"}).status_code == 400, lookup
        assert client.get(LIST, {"owner__startswith": "o"}).status_code == 200

    def test_nor_does_the_order(self) -> None:
        for title in ("b", "a", "c"):
            say("hello", owner=title, title=title)
        client = staff(*SEES_LIST)
        orders = {
            tuple(re.findall(r"\b[abc]\b", shown(client, LIST, o=o))) for o in ("0", "-0", "99")
        }
        assert len(orders) == 1

    @pytest.mark.parametrize("name", ["title", "key", "state"])
    def test_nor_what_a_popup_is_asked_for(self, name: str) -> None:
        say("hush", title="hush")
        assert staff(*SEES_LIST).get(LIST, {"_to_field": name}).status_code == 400

    def test_it_is_read_only(self) -> None:
        conversation = say("hello", title="before")
        client = staff(*SEES_ALL, "add_conversation", "change_conversation")
        url = page_of(conversation)
        assert client.get(f"{LIST}add/").status_code == 403
        assert client.post(url, {"title": "after"}).status_code == 403
        assert client.post(LIST, {"_save": "1", "form-0-title": "after"}).status_code != 302
        html = client.get(url).text
        assert '<input type="text"' not in html
        assert 'name="_save"' not in html
        assert conversations.get(conversation.id)["title"] == "before"

    def test_a_link_to_delete_is_for_those_who_may(self) -> None:
        url = page_of(say("hello"))
        assert "deletelink" not in staff(*SEES_ALL).get(url).text
        assert "deletelink" in staff(*DELETES).get(url).text


class TestDeletion:
    @pytest.fixture
    def deleted(self) -> Iterator[list[str]]:
        ids: list[str] = []

        def note(sender: Any, id: str, **kwargs: Any) -> None:
            assert sender is conversations
            ids.append(id)

        conversation_deleted.connect(note)
        yield ids
        conversation_deleted.disconnect(note)

    def test_by_its_page(self, deleted: list[str]) -> None:
        conversation = say("hello", title="a secret")
        other = say("hello")
        url = page_of(conversation).replace("change", "delete")
        client = staff(*DELETES)
        text = shown(client, url)
        assert "Messages: 1" in text
        assert "secret" not in text
        assert conversations.exists(conversation.id)
        assert client.post(url, {"post": "yes"}).status_code == 302
        assert deleted == [conversation.id]
        assert not conversations.exists(conversation.id)
        assert conversations.exists(other.id)
        entry = LogEntry.objects.get(action_flag=DELETION)
        assert "secret" not in entry.object_repr
        conversation.messages.append("user", "too late")
        with pytest.raises(ConversationInterrupted):
            conversation.save()
        assert Row.rows.filter(key=conversation.id, deleted_at__isnull=False).exists()

    def test_by_the_action(self, deleted: list[str]) -> None:
        gone = [say("hello", "hello yourself", title="a secret") for _ in range(3)]
        kept = say("hello")
        client = staff(*DELETES)
        rows = Row.objects.filter(key__in=[each.id for each in gone])
        data = {"action": "delete_selected", "_selected_action": [row.pk for row in rows]}
        text = " ".join(client.post(LIST, data).text.split())
        assert "Messages: 6" in text
        assert "secret" not in text
        assert "Ticket" not in text
        assert client.post(LIST, {**data, "post": "yes"}).status_code == 302
        assert sorted(deleted) == sorted(each.id for each in gone)
        assert [each.id for each in conversations.list()] == [kept.id]
        assert LogEntry.objects.filter(action_flag=DELETION).count() == 3
        assert Message.objects.count() == 1

    @pytest.mark.parametrize("may", [SEES_LIST, SEES_ALL])
    def test_not_without_the_permission(self, may: tuple[str, ...]) -> None:
        conversation = say("hello")
        client = staff(*may)
        url = page_of(conversation).replace("change", "delete")
        assert client.post(url, {"post": "yes"}).status_code == 403
        pk = Row.objects.get().pk
        data = {"action": "delete_selected", "_selected_action": [pk], "post": "yes"}
        client.post(LIST, data)
        assert conversations.exists(conversation.id)

    def test_foreign_keys_are_set_to_null(self) -> None:
        conversation = say("hello")
        ticket = Ticket._default_manager.create(subject="help", conversation=Row.objects.get())
        url = page_of(conversation).replace("change", "delete")
        staff(*DELETES).post(url, {"post": "yes"})
        ticket.refresh_from_db()
        assert ticket.conversation is None

    def test_what_would_go_along_is_shown_and_needs_its_own_permission(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conversation = say("hello")
        Ticket._default_manager.create(subject="help", conversation=Row.objects.get())
        on_delete(monkeypatch, CASCADE)
        client, url = staff(*DELETES), page_of(conversation).replace("change", "delete")
        assert "Ticket: help" in shown(client, url)
        admin.site.register(Ticket)
        try:
            assert "your account doesn't have permission" in shown(client, url)
            assert client.post(url, {"post": "yes"}).status_code == 403
        finally:
            admin.site.unregister(Ticket)
        assert conversations.exists(conversation.id)
        assert client.post(url, {"post": "yes"}).status_code == 302
        assert not Ticket._default_manager.exists()

    def test_what_is_protected_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        conversation = say("hello")
        Ticket._default_manager.create(subject="help", conversation=Row.objects.get())
        on_delete(monkeypatch, PROTECT)
        client, url = staff(*DELETES), page_of(conversation).replace("change", "delete")
        assert "would require deleting the following protected" in shown(client, url)
        client.post(url, {"post": "yes"})
        monkeypatch.undo()
        assert conversations.exists(conversation.id)


def on_delete(monkeypatch: pytest.MonkeyPatch, what: Any) -> None:
    """Have the tickets of the tests do this when their conversation is deleted."""
    field: Any = Ticket._meta.get_field("conversation")
    monkeypatch.setattr(field.remote_field, "on_delete", what)
