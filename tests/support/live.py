"""The project that tests have real servers run: the views of streams.py, or of the module in
CONVSTATE_TEST_URLS, with conversations on the Valkey at CONVSTATE_TEST_REDIS_URL, for which an
operation waits CONVSTATE_TEST_TIMEOUT seconds."""

import os

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

timeout = float(os.environ.get("CONVSTATE_TEST_TIMEOUT", "5"))
settings.configure(
    SECRET_KEY=os.environ["CONVSTATE_TEST_SECRET"],
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=os.environ.get("CONVSTATE_TEST_URLS", "tests.support.streams"),
    INSTALLED_APPS=["django_convstate"],
    MIDDLEWARE=[
        "tests.support.streams.dawdling",
        "django_convstate.middleware.ConversationMiddleware",
    ],
    CACHES={
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ["CONVSTATE_TEST_REDIS_URL"],
            "OPTIONS": {"SOCKET_TIMEOUT": timeout, "SOCKET_CONNECT_TIMEOUT": timeout},
        }
    },
    CONVERSATION_STATE_BACKEND="redis",
)
asgi = get_asgi_application()
wsgi = get_wsgi_application()
