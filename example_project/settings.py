"""Settings of the example. The defaults suit a developer's machine and need no server:

    ./manage.py runserver
    CONVERSATION_STATE_BACKEND=cache REDIS_URL=redis://localhost:6379/0 ./manage.py runserver
    CONVERSATION_TTL=30 ./manage.py runserver      # to watch a conversation expire
    CONCIERGE_PAUSE=0.3 ./manage.py runserver      # to watch an answer being made

No database: a conversation needs none. With one, and the admin: settings_database.py.
"""

from typing import Any

import environ

env = environ.Env()

DEBUG = env.bool("DEBUG", default=True)
# Tokens of conversations are signed with it, so a default exists for development only.
SECRET_KEY = env.str(
    "SECRET_KEY", default="insecure-for-development-only" if DEBUG else environ.Env.NOTSET
)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])

# Where conversations are kept, and for how long (idle seconds).
CONVERSATION_STATE_BACKEND = env.str("CONVERSATION_STATE_BACKEND", default="locmem")
CONVERSATION_STATE: dict[str, Any] = {
    "TTL": env.float("CONVERSATION_TTL", default=3600.0),
    "OWNER": "example_project.concierge.visitors.owner_of",
}

REDIS_URL = env.str("REDIS_URL", default="")
REDIS_TIMEOUT = env.float("REDIS_TIMEOUT", default=0.25)  # seconds
IN_MEMORY: dict[str, Any] = {
    "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
    # Its default of 300 is few for conversations, and what is beyond is dropped.
    "OPTIONS": {"MAX_ENTRIES": 10_000},
}
ON_REDIS: dict[str, Any] = {
    "BACKEND": "django_redis.cache.RedisCache",
    "LOCATION": REDIS_URL,
    # Without them, a server that does not answer stops the page for minutes.
    "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": REDIS_TIMEOUT, "SOCKET_TIMEOUT": REDIS_TIMEOUT},
}
CACHES = {"default": ON_REDIS if REDIS_URL else IN_MEMORY}

# What one tab hears of the others; enough room for every word of a long answer. With more than one
# process it is channels_redis's.
CHANNEL_LAYERS = {
    "default": {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 1000}}
}

# Seconds before each word of an answer, which the rules would have at once.
CONCIERGE_PAUSE = env.float("CONCIERGE_PAUSE", default=0.03)

INSTALLED_APPS = [
    "daphne",  # makes runserver one for websockets
    "django.contrib.staticfiles",
    "django_convstate",
    "example_project.concierge",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django_convstate.middleware.ConversationMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
ROOT_URLCONF = "example_project.urls"
ASGI_APPLICATION = "example_project.asgi.application"
WSGI_APPLICATION = "example_project.wsgi.application"
STATIC_URL = "static/"
TIME_ZONE = "UTC"
USE_TZ = True
