"""The project that `tests/http/test_servers.py` has real servers run: the views of streams.py, with
conversations on the Valkey at CONVSTATE_TEST_REDIS_URL."""

import os

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

settings.configure(
    SECRET_KEY=os.environ["CONVSTATE_TEST_SECRET"],
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="tests.support.streams",
    INSTALLED_APPS=["django_convstate"],
    MIDDLEWARE=[
        "tests.support.streams.dawdling",
        "django_convstate.middleware.ConversationMiddleware",
    ],
    CACHES={
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ["CONVSTATE_TEST_REDIS_URL"],
            "OPTIONS": {"SOCKET_TIMEOUT": 5, "SOCKET_CONNECT_TIMEOUT": 5},
        }
    },
    CONVERSATION_STATE_BACKEND="redis",
)
asgi = get_asgi_application()
wsgi = get_wsgi_application()
