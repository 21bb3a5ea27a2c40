"""Settings of a small project, whose tests are run by other tests."""

import os

SECRET_KEY = "only for tests"
USE_TZ = True
ROOT_URLCONF = "tests.support.urls"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django_convstate",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_convstate.middleware.ConversationMiddleware",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": os.environ.get("PROJECT_REDIS_URL", "redis://localhost"),
        "OPTIONS": {"SOCKET_TIMEOUT": 20, "SOCKET_CONNECT_TIMEOUT": 20},
    }
}
CONVERSATION_STATE_BACKEND = os.environ["PROJECT_BACKEND"]
