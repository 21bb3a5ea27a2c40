"""Conversations in the database of the project: an app of its own, for INSTALLED_APPS."""
