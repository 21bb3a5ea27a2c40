"""The example's tests use what django-convstate has for the tests of projects."""

from _django_convstate_pytest import empty_conversations

__all__ = ["empty_conversations"]
