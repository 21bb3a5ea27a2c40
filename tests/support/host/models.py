"""A ticket knows the conversation in which it was opened."""

from django.db import models


class Ticket(models.Model):
    subject = models.CharField(max_length=100)
    conversation = models.ForeignKey(
        "convstate_database.Conversation",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="tickets",
    )

    def __str__(self) -> str:
        return self.subject
