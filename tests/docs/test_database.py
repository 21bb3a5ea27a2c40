"""docs/database.md does what it says: its Python and its SQL are run."""

import math
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.db import connections
from django.test.utils import isolate_apps

from django_convstate import ConversationStore
from django_convstate.backends.database.models import Conversation
from tests.support.databases import ALIASES
from tests.support.docs import ROOT, blocks
from tests.support.host.models import Ticket

TEXT = (ROOT / "docs/database.md").read_text()


def block(words: str, language: str = "python") -> str:
    (found,) = [each for each in blocks(TEXT, language) if words in each]
    return found


def define(words: str, **names: Any) -> dict[str, Any]:
    exec(compile(block(words), "database.md", "exec"), names)
    return names


def test_the_settings_are_complete(settings: Any) -> None:
    names = define("INSTALLED_APPS")
    assert set(names["INSTALLED_APPS"]) <= set(settings.INSTALLED_APPS)
    settings.CONVERSATION_STATE_BACKEND = names["CONVERSATION_STATE_BACKEND"]
    settings.CONVERSATION_STATE = names["CONVERSATION_STATE"]
    said = [str(each.id) for each in run_checks(databases=[])]
    assert [id for id in said if id.startswith("convstate.")] == []


def test_the_other_settings(sqlite: str, tmp_path: Any) -> None:
    names = define("ATOMIC_REQUESTS", DATABASES={"default": {"NAME": "x"}}, CONVERSATION_STATE={})
    assert names["DATABASES"]["conversations"] == {"NAME": "x", "ATOMIC_REQUESTS": False}
    assert names["CONVERSATION_STATE"] == {"DATABASE_ALIAS": "conversations"}
    (entry,) = define("journal_mode", BASE_DIR=tmp_path)["DATABASES"].values()
    connections.settings["documented"] = entry
    connections.configure_settings(connections.settings)
    connection: Any = connections["documented"]
    try:
        with connection.temporary_connection() as cursor:
            assert cursor.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        del connections["documented"], connections.settings["documented"]


@pytest.fixture
def names(database: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the examples use, on each database in turn."""
    for model in (Conversation, Ticket):
        on_alias = model._default_manager.db_manager(database)
        monkeypatch.setattr(model, "objects", on_alias)
    return {
        "request": SimpleNamespace(user=User(pk=7)),
        "monday": datetime(2020, 1, 6, tzinfo=UTC),
        "next_monday": datetime(2120, 1, 1, tzinfo=UTC),
        "Conversation": Conversation,
        "Ticket": Ticket,
    }


def test_the_queries_find_what_they_say(database: str, names: dict[str, Any]) -> None:
    store = ConversationStore("database", database_alias=database, ttl=math.inf)
    for owner, city in (("7", "Jaipur"), ("8", "Delhi")):
        conversation = store.create(owner=owner)
        conversation["title"] = conversation["city"] = city
        conversation.messages.append("user", f"Is there a train to {city}?")
        conversation.save()
    if database in ALIASES[1:]:
        sql = block("CREATE INDEX", "sql").replace(" CONCURRENTLY", " IF NOT EXISTS")
        with connections[database].cursor() as cursor:
            cursor.execute(sql)
    found = define("mine = ", **names)
    assert [title for _, title in found["titles"]] == ["Jaipur"]
    assert found["this_week"].get().owner == "7"
    assert found["to_jaipur"].get().owner == "7"
    assert found["trains"].get().owner == "7"
    (day,) = found["per_day"]
    assert day == {"day": day["day"], "messages": 1}
    columns = "key owner version title state_json message_count messages created_at modified_at"
    for name in f"{columns} last_accessed expires_at state".split():
        assert f"`{name}`" in TEXT
        assert hasattr(found["mine"].get(), name)


@isolate_apps("tests.support.host")
def test_the_model_is_that_of_the_tests(names: dict[str, Any]) -> None:
    written = define("class Ticket(", __name__="tests.support.host.models")["Ticket"]
    for field in ("subject", "conversation"):
        mine, theirs = written._meta.get_field(field), Ticket._meta.get_field(field)
        assert type(mine) is type(theirs)
    on_delete = [
        cast("Any", model._meta.get_field("conversation")).remote_field.on_delete
        for model in (written, Ticket)
    ]
    assert on_delete[0] is on_delete[1]


def test_a_ticket_is_opened(database: str, names: dict[str, Any]) -> None:
    store = ConversationStore("database", database_alias=database, ttl=math.inf)
    conversation = store.create()
    conversation.messages.append("user", "help")
    request = SimpleNamespace(conversation=conversation, POST={"subject": "help"})
    define("def open_ticket", **names)["open_ticket"](request)
    ticket = Ticket._default_manager.using(database).get()
    assert ticket.conversation is not None
    assert ticket.conversation.key == conversation.id
