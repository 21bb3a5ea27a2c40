"""What is deleted along with conversations, and how the admin deletes them."""

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib.admin.sites import AdminSite
from django.contrib.admin.utils import NestedObjects, quote
from django.db.models import Model
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.text import capfirst

from .... import conf
from ....store import ConversationStore, conversations
from ..models import Conversation, Message

Deleted = tuple[list[Any], dict[Any, int], set[Any], list[Any]]


def delete(row: Conversation, alias: str) -> None:
    """Delete a conversation as its store does, so that it is not begun again by a late change, and
    the signal is sent."""
    is_default = conf.backend_name() == "database"
    if is_default and row.prefix == conversations.options.key_prefix:
        store = conversations
    else:
        store = ConversationStore("database", database_alias=alias, key_prefix=row.prefix)
    store.delete(row.key)


def deleted_with(
    rows: Sequence[Conversation], alias: str, request: HttpRequest, site: AdminSite
) -> Deleted:
    """Return what `ModelAdmin.get_deleted_objects` returns. Messages are counted and not read, for
    there may be a great many of them."""
    rows = list(rows)
    collector = _WithoutMessages(using=alias, origin=rows)
    collector.collect(rows)
    lacking: set[Any] = set()
    describe = _describing(request, site, lacking)
    nested = collector.nested(describe)
    found: dict[Any, Any] = collector.model_objs
    counts = {model._meta.verbose_name_plural: len(objects) for model, objects in found.items()}
    if messages := sum(row.message_count for row in rows):
        counts.setdefault(Message._meta.verbose_name_plural, messages)
    return nested, counts, lacking, [describe(each) for each in collector.protected]


class _WithoutMessages(NestedObjects):
    def can_fast_delete(self, objs: Any, from_field: Any = None) -> bool:
        """Tell whether something is not to be shown one by one."""
        return objs is Message and not Message._meta.related_objects


def _describing(request: HttpRequest, site: AdminSite, lacking: set[Any]) -> Callable[[Model], str]:
    """Return what describes an object, with a link to it, and notes in `lacking` what this user
    may not delete."""

    def describe(row: Model) -> str:
        options = row._meta
        name = f"{capfirst(options.verbose_name)}: {row}"
        if not site.is_registered(type(row)):
            return name
        if not site.get_model_admin(type(row)).has_delete_permission(request, row):
            lacking.add(options.verbose_name)
        try:
            view = f"{site.name}:{options.app_label}_{options.model_name}_change"
            address = reverse(view, args=(quote(row.pk),))
        except NoReverseMatch:
            return name
        return format_html('<a href="{}">{}</a>', address, name)

    return describe
