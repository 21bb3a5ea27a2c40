"""The settings with a database, a file of SQLite: it has the conversations, for 30 days, and the
users of the admin. `make demo-database` serves the example by these.
"""

from .settings import *  # noqa: F403
from .settings import CONVERSATION_STATE, INSTALLED_APPS, MIDDLEWARE, TEMPLATES, env

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": env.str("DATABASE_FILE", default="demo.sqlite3"),
        # Readers do not wait for a writer, and a writer does for another.
        "OPTIONS": {"timeout": 20, "init_command": "PRAGMA journal_mode=WAL"},
    }
}
CONVERSATION_STATE_BACKEND = "database"
CONVERSATION_STATE = CONVERSATION_STATE | {
    "TTL": env.float("CONVERSATION_TTL", default=30 * 24 * 3600.0)
}

INSTALLED_APPS = [
    *INSTALLED_APPS,
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django_convstate.backends.database",
]
# Before ConversationMiddleware, which is the last one.
MIDDLEWARE = [
    *MIDDLEWARE[:-1],
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    *MIDDLEWARE[-1:],
]
TEMPLATES = [
    TEMPLATES[0]
    | {
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        }
    }
]
ROOT_URLCONF = "example_project.urls_database"
