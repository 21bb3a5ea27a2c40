"""The project that bench_live.py serves: one view four times, with the conversation or Django's
session, async and sync. It notes a value, appends two messages, and answers with the newest twenty.

BENCH_KEEPS says which of the two middlewares is there: each server does one thing.
"""

import os
from typing import Any

from benchmarks.settings_redis import *  # noqa: F403

KEEPS = os.environ.get("BENCH_KEEPS", "conversation")
ROOT_URLCONF = "benchmarks.live_urls"
ALLOWED_HOSTS = ["*"]
DEBUG = False
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
SESSION_SERIALIZER = "django.contrib.sessions.serializers.JSONSerializer"
CONVERSATION_STATE_BACKEND = "redis"
CONVERSATION_STATE: dict[str, Any] = {"WINDOW": 20}
KEEPER = {
    "conversation": "django_convstate.middleware.ConversationMiddleware",
    "session": "django.contrib.sessions.middleware.SessionMiddleware",
}[KEEPS]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware", KEEPER]
