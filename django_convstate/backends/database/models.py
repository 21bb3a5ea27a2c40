"""The tables: a row for each conversation, and one for each of its messages.

The bytes are the truth. The columns beside them that copy what is in the bytes (`title`,
`state_json`, `role`, `text`, `sent_at`) are for queries: they may be empty, and nothing that a
conversation answers depends on them.
"""

from typing import Any, ClassVar

from django.db import models
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from .querysets import ConversationManager, MessageManager


class Conversation(models.Model):
    """A conversation. A foreign key to it stays valid when the conversation gets another id.

    `objects` has those that are stored now. A row with version 0 holds the leases of a conversation
    that is not stored, or says that one was deleted; `rows` has these, too.
    """

    prefix = models.CharField(_("prefix"), max_length=128)
    key = models.CharField(_("id"), max_length=255)
    # None: it has no owner; "" is none.
    owner = models.CharField(_("owner"), max_length=256, null=True, blank=True)  # noqa: DJ001
    title = models.CharField(_("title"), max_length=200, blank=True, default="")
    version = models.BigIntegerField(_("version"), default=0)
    message_count = models.BigIntegerField(_("messages"), default=0)
    dropped = models.BigIntegerField(_("dropped messages"), default=0)
    last_key = models.BinaryField(default=b"")
    state = models.BinaryField(default=b"")
    state_json = models.JSONField(_("state"), null=True, blank=True)
    state_size = models.BigIntegerField(default=0)
    messages_size = models.BigIntegerField(default=0)
    commits = models.BinaryField(default=b"")
    leases = models.BinaryField(null=True)
    leased_until = models.DateTimeField(null=True, blank=True)
    ttl = models.FloatField(_("idle time in seconds"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"))
    modified_at = models.DateTimeField(_("last saved"))
    last_accessed = models.DateTimeField(_("last used"))
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    cursor = models.CharField(max_length=28, default="")
    deleted_at = models.DateTimeField(null=True, blank=True)
    moved_to = models.CharField(max_length=255, blank=True, default="")
    quarantined = models.CharField(max_length=32, blank=True, default="")

    objects: ClassVar[ConversationManager] = ConversationManager()
    rows: ClassVar["models.Manager[Conversation]"] = models.Manager()

    class Meta:
        app_label = "convstate_database"
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        base_manager_name = "rows"
        permissions = (("view_contents", "Can see what conversations are about"),)
        constraints = (
            models.UniqueConstraint(
                fields=("prefix", "key", "quarantined"), name="convstate_conversation_key"
            ),
        )
        indexes = (
            models.Index(fields=("prefix", "owner", "-cursor"), name="convstate_owner_activity"),
            models.Index(fields=("prefix", "-cursor"), name="convstate_activity"),
            models.Index(fields=("modified_at",), name="convstate_modified"),
            models.Index(fields=("expires_at",), name="convstate_expiry"),
        )

    # In logs, tracebacks, choices of a form and the log of the admin neither the id is to be seen,
    # nor what the conversation is about.

    def __repr__(self) -> str:
        return f"<Conversation {self.pk}>"

    __sentry_repr__ = __repr__

    def __str__(self) -> str:
        return f"{capfirst(self._meta.verbose_name)} {self.pk}"


class Message(models.Model):
    """A message of a conversation, at the position at which it was appended."""

    conversation = models.ForeignKey(
        Conversation, models.CASCADE, related_name="messages", db_index=False
    )
    position = models.BigIntegerField(_("position"))
    message_id = models.CharField(_("id"), max_length=64)
    data = models.BinaryField()
    role = models.CharField(_("role"), max_length=64, blank=True, default="")
    text = models.TextField(_("text"), null=True, blank=True)  # noqa: DJ001 - it has none
    sent_at = models.DateTimeField(_("time"), null=True, blank=True)

    objects: ClassVar[MessageManager[Any]] = MessageManager()

    class Meta:
        app_label = "convstate_database"
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        constraints = (
            models.UniqueConstraint(
                fields=("conversation", "position"), name="convstate_message_position"
            ),
        )
        indexes = (
            models.Index(fields=("message_id", "conversation"), name="convstate_message_id"),
            models.Index(fields=("role", "sent_at"), name="convstate_role_time"),
        )

    def __str__(self) -> str:
        return f"{self.role or self._meta.verbose_name} {self.position}"
