"""The project that bench_db.py measures: sessions and conversations in one PostgreSQL."""

import os

from benchmarks.settings import *  # noqa: F403

INSTALLED_APPS = [
    "django.contrib.sessions",
    "django_convstate",
    "django_convstate.backends.database",
]
SESSION_ENGINE = "django.contrib.sessions.backends.db"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": os.environ["BENCH_DATABASE_HOST"],
    }
}
