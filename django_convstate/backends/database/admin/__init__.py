"""Stored conversations in Django's admin: a list, and each with what was said in it, to read.

Who may view conversations sees how many there are, and of each its owner, its size and its times.
What it is about, title included, is for those who have the permission `view_contents`, too, and
each look at what was said is logged.
"""

from typing import Any, ClassVar, Final

from django.contrib import admin
from django.contrib.admin.filters import EmptyFieldListFilter
from django.contrib.admin.options import get_content_type_for_model
from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .... import conf
from ....exceptions import ConversationCorrupt, ConversationInterrupted, ConversationNotFound
from ..models import Conversation
from .contents import BEFORE, read_contents
from .deletion import Deleted, delete, deleted_with
from .filters import PARAMETER, ExpiryFilter

# The `action_flag` of the entries of a look. Django has 1 to 3, for additions, changes, deletions.
VIEWED: Final = 4
# What says nothing about contents: by these a list may be narrowed, in its address, too.
_HARMLESS: Final = frozenset(
    {"pk", "id", "prefix", "key", "owner", "version", "message_count", "dropped", "ttl"}
    | {"created_at", "modified_at", "last_accessed", "expires_at", PARAMETER}
)
# What is large, and not for people.
_DEFERRED: Final = ("state", "state_json", "commits", "leases", "last_key")
_PROPERTIES: Final = ("owner", "message_count", "size", "modified_at")
_DETAILS: Final = (
    *("key", "prefix", "version", "dropped", "created_at", "last_accessed", "expires_at", "ttl"),
)


@admin.register(Conversation)
class ConversationAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Conversations to read and to delete. They are changed through the API alone."""

    date_hierarchy = "modified_at"
    list_filter = ("modified_at", "created_at", ExpiryFilter, ("owner", EmptyFieldListFilter))
    ordering = ("-modified_at",)
    search_fields = ("key__exact", "owner__exact")
    search_help_text = _(
        "An owner or an id as a whole; a title or words of messages, if you may see them."
    )
    show_full_result_count = False  # which is to count all rows, each time

    class Media:
        css: ClassVar[Any] = {"all": ("convstate_database/admin.css",)}

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: a row that is added here would be no conversation."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: a change of a row is not seen as one of the conversation."""
        return False

    def has_contents_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Tell whether the user may see what conversations are about."""
        return request.user.has_perm(f"{self.opts.app_label}.view_contents")

    @property
    def alias(self) -> str:
        """The entry of DATABASES in which the conversations are."""
        return conf.current().database_alias

    # The list.

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        """Return the conversations that are stored, and have not expired."""
        rows: QuerySet[Conversation] = Conversation.objects.using(self.alias)
        return rows.defer(*_DEFERRED).order_by(*self.ordering)

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        """Return the columns that the user may see."""
        name = "title_or_number" if self.has_contents_permission(request) else "__str__"
        return (name, "owner", "message_count", "size", "modified_at")

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """Return the fields in which the user may search."""
        titles = ("title",) if self.has_contents_permission(request) else ()
        return (*self.search_fields, *titles)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Search what was said, too, if the user may see that."""
        found, may_repeat = super().get_search_results(request, queryset, search_term)
        if search_term and self.has_contents_permission(request):
            rows: Any = queryset
            found |= rows.search(search_term)
        return found, may_repeat

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Refuse to narrow the list by what the user may not see: that tells it bit by bit."""
        is_harmless = lookup.partition("__")[0] in _HARMLESS
        if not (is_harmless or self.has_contents_permission(request)):
            return False
        return super().lookup_allowed(lookup, value, request)

    @admin.display(description=_("title"), ordering="title")
    def title_or_number(self, conversation: Conversation) -> str:
        """Return what a conversation is called."""
        return conversation.title or str(conversation)

    @admin.display(description=_("size"), ordering=F("state_size") + F("messages_size"))
    def size(self, conversation: Conversation) -> str:
        """Return how much is stored of a conversation."""
        return filesizeformat(conversation.state_size + conversation.messages_size)

    # One conversation.

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> tuple[Any, ...]:
        """Return what the user may see beside what was said."""
        titles = ("title",) if self.has_contents_permission(request, obj) else ()
        return (
            (None, {"fields": (*titles, *_PROPERTIES)}),
            (_("Details"), {"fields": _DETAILS, "classes": ("collapse",)}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Return all fields."""
        return ("title", *_PROPERTIES, *_DETAILS)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Add what was said, if the user may see it, and log that they have seen it."""
        row = kwargs["obj"]
        if self.has_contents_permission(request, row):
            context |= self._contents(request, row)
        return super().render_change_form(request, context, *args, **kwargs)

    def _contents(self, request: HttpRequest, row: Conversation) -> dict[str, Any]:
        try:
            contents = read_contents(row, self.alias, request.GET.get(BEFORE, ""))
        except (ConversationNotFound, ConversationInterrupted):
            return {"absent": gettext("It was deleted or has expired meanwhile.")}
        except ConversationCorrupt:
            return {"absent": gettext("What is stored makes no sense, and was set aside.")}
        self.log_look(request, row, [line.number for line in contents.lines])
        return {"contents": contents}

    def log_look(self, request: HttpRequest, conversation: Conversation, seen: list[int]) -> None:
        """Log that the user has seen the state, and the messages with these numbers."""
        from django.contrib.admin.models import LogEntry

        what = f"messages {seen[0]} to {seen[-1]}" if seen else "no messages"
        LogEntry.objects.create(
            user_id=str(request.user.pk),  # as text, for any kind of primary key
            content_type_id=get_content_type_for_model(conversation).pk,
            object_id=str(conversation.pk),
            object_repr=str(conversation),
            action_flag=VIEWED,
            change_message=f"Viewed the state and {what}.",
        )

    # Deletion.

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Deleted:
        """Return what is deleted along with conversations."""
        return deleted_with(objs, self.alias, request, self.admin_site)

    def delete_model(self, request: HttpRequest, obj: Conversation) -> None:
        """Delete a conversation as its store does."""
        delete(obj, self.alias)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Delete conversations, one after the other."""
        for row in queryset:
            delete(row, self.alias)
