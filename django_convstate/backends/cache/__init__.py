"""Conversations in any of Django's caches, one document each."""

from .backend import CacheBackend

__all__ = ["CacheBackend"]
