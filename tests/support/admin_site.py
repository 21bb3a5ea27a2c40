"""A project with the admin, whose users, sessions and conversations are all in one database."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import path

from django_convstate import Conversation, conversations
from django_convstate.backends.database.admin import VIEWED
from django_convstate.backends.database.models import Conversation as Row

LIST = "/admin/convstate_database/conversation/"
SEES_LIST = ("view_conversation",)
SEES_ALL = (*SEES_LIST, "view_contents")
DELETES = (*SEES_LIST, "delete_conversation")

urlpatterns = [path("admin/", admin.site.urls)]


class Router:
    """Sends every query to one database."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return self.alias

    db_for_write = db_for_read

    def allow_relation(self, *objects: Any, **hints: Any) -> bool:
        return True


@contextmanager
def admin_on(alias: str, settings: Any) -> Iterator[None]:
    """Set what such a project sets, and leave nothing behind."""
    settings.ROOT_URLCONF = __name__
    settings.DATABASE_ROUTERS = [Router(alias)]
    settings.CONVERSATION_STATE_BACKEND = "database"
    settings.CONVERSATION_STATE = {"DATABASE_ALIAS": alias, "TTL": 600}
    yield
    conversations.purge(everything=True)
    for model in (LogEntry, Session, User):
        model._default_manager.all().delete()


def staff(*may: str) -> Client:
    """Return the browser of a member of the staff who may do this much with conversations."""
    user = User.objects.create_user(f"may {' '.join(may)}", is_staff=True)
    granted = Permission.objects.filter(
        content_type__app_label="convstate_database", codename__in=may
    )
    assert len(granted) == len(may)
    user.user_permissions.set(granted)
    client = Client()
    client.force_login(user)
    return client


def say(*texts: str, owner: str | None = None, **state: Any) -> Conversation:
    conversation = conversations.create(owner=owner)
    conversation.update(state)
    for number, text in enumerate(texts):
        conversation.messages.append("assistant" if number % 2 else "user", text)
    conversation.save()
    return conversation


def page_of(conversation: Conversation) -> str:
    return f"{LIST}{Row.rows.get(key=conversation.id, quarantined='').pk}/change/"


def shown(client: Client, url: str, **query: str) -> str:
    """Return the page, without its tags."""
    response = client.get(url, query)
    assert response.status_code == 200
    text = re.sub(r"<[^>]*>", " ", re.sub(r"<script.*?</script>", "", response.text, flags=re.S))
    return " ".join(unescape(text).split())


def looks() -> list[str]:
    """Return what is logged of looks, in their order."""
    return list(
        LogEntry.objects.filter(action_flag=VIEWED)
        .order_by("pk")
        .values_list("change_message", flat=True)
    )
