"""The project that `tests/channels/test_websockets.py` has real servers run.
CONVSTATE_TEST_SETTINGS holds what is set in it, as JSON."""

import json
import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF="tests.support.urls",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django_convstate",
    ],
    MIDDLEWARE=["django_convstate.middleware.ConversationMiddleware"],
    **json.loads(os.environ["CONVSTATE_TEST_SETTINGS"]),
)
http = get_asgi_application()

from django_convstate.channels import ConversationMiddlewareStack  # noqa: E402 - after the set-up
from tests.support.consumers import Chat, Plain, SyncChat  # noqa: E402

chats = [
    path("async", Chat.as_asgi()),
    path("sync", SyncChat.as_asgi()),
    path("plain", Plain.as_asgi()),
]
application = ProtocolTypeRouter(
    {"http": http, "websocket": ConversationMiddlewareStack(URLRouter(chats))}
)
