"""What a project asks of the tables: `Conversation.objects` and `Message.objects`."""

from datetime import datetime
from typing import Any, Self, TypeVar

from django.db import connections, models
from django.db.models import Count, JSONField, Q, QuerySet, Value
from django.db.models.fields.json import KeyTransform
from django.db.models.functions import TruncDate

from ...ids import Owner, owner_of
from .times import CurrentTime

# By names: the module of the models imports this one.
Row = TypeVar("Row", bound=models.Model)


class MessageQuerySet(QuerySet[Row]):
    """Messages, whatever conversation they are of."""

    def search(self, text: str) -> Self:
        """Return those whose text has these words: by the full text search of PostgreSQL, without
        stemming; elsewhere those in which `text` occurs, in capitals or small letters."""
        if connections[self.db].vendor != "postgresql":
            return self.filter(text__icontains=text)
        from django.contrib.postgres.search import SearchQuery, SearchVector

        vector = SearchVector("text", config="simple")
        query = SearchQuery(text, config="simple", search_type="websearch")
        return self.annotate(convstate_words=vector).filter(convstate_words=query)

    def per_day(self) -> QuerySet[Any, dict[str, Any]]:
        """Return for each day, in the current time zone, a dictionary with `day` and `messages`,
        the oldest first. Messages without a time are not counted."""
        dated = self.filter(sent_at__isnull=False).annotate(day=TruncDate("sent_at"))
        days = dated.order_by("day").values("day")
        counted: QuerySet[Any, dict[str, Any]] = days.annotate(messages=Count("pk"))
        return counted


class ConversationQuerySet(QuerySet[Row]):
    """Conversations."""

    def stored(self) -> Self:
        """Return those that are stored, and have not expired."""
        return self.filter(
            Q(expires_at__isnull=True) | Q(expires_at__gt=CurrentTime()),
            version__gt=0,
            quarantined="",
        )

    def owned_by(self, owner: Owner) -> Self:
        """Return those of an owner, a string or a user. An anonymous user owns nothing."""
        name = owner_of(owner)
        return self.none() if name is None else self.filter(owner=name)

    def active_between(self, start: datetime, end: datetime) -> Self:
        """Return those that were last saved from `start` on, and before `end`."""
        return self.filter(modified_at__gte=start, modified_at__lt=end)

    def with_state(self, key: str, value: Any) -> Self:
        """Return those whose state has this JSON under a key."""
        found = self.annotate(convstate_value=KeyTransform(key, "state_json"))
        return found.filter(convstate_value=Value(value, JSONField()))

    def search(self, text: str) -> Self:
        """Return those that have a message with these words: see `MessageQuerySet.search`."""
        found = self._messages().search(text)
        return self.filter(pk__in=found.values("conversation"))

    def messages_per_day(self) -> QuerySet[Any, dict[str, Any]]:
        """Return for each day how many messages of these conversations were said: see
        `MessageQuerySet.per_day`."""
        found: QuerySet[Any, dict[str, Any]]
        found = self._messages().filter(conversation__in=self).per_day()
        return found

    def _messages(self) -> Any:
        messages: Any = self.model._meta.get_field("messages").related_model
        return messages.objects.using(self.db)


class ConversationManager(models.Manager.from_queryset(ConversationQuerySet)):  # type: ignore[misc]
    """Of the conversations that are stored, and have not expired."""

    def get_queryset(self) -> ConversationQuerySet[Any]:
        """Return those."""
        return ConversationQuerySet(self.model, using=self._db).stored()


MessageManager = models.Manager.from_queryset(MessageQuerySet)
