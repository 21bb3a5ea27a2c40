"""Where an ASGI server finds the example: the pages and the API by HTTP, the chat by websocket."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

http = get_asgi_application()  # first, because it sets Django up

from django_convstate.channels import ConversationMiddlewareStack  # noqa: E402

from .concierge.routing import urlpatterns  # noqa: E402

application = ProtocolTypeRouter(
    {"http": http, "websocket": ConversationMiddlewareStack(URLRouter(urlpatterns))}
)
