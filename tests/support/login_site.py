"""The project that `tests/example/test_browser_logins.py` has a real server run: one page with a
chat, to which one may log in. CONVSTATE_TEST_FILES names the directory of its database.
"""

import os

from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

settings.configure(
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF="tests.support.login_site",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django_convstate",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django_convstate.middleware.ConversationMiddleware",
    ],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": f"{os.environ['CONVSTATE_TEST_FILES']}/db.sqlite3",
            "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
        }
    },
    USE_TZ=True,
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
http = get_asgi_application()

# After the set-up.
from django.contrib.auth import authenticate, login, logout  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect  # noqa: E402
from django.utils.html import format_html, format_html_join  # noqa: E402

from django_convstate.channels import ConversationMiddlewareStack  # noqa: E402
from tests.support.consumers import Chat  # noqa: E402

call_command("migrate", verbosity=0)
for name in ("olga", "mallory"):
    User.objects.create_user(name, password=name)

PAGE = """<!doctype html><title>Chat</title>
<p id="who">{}</p><p id="socket"></p><ul id="said">{}</ul>
<form action="/say"><input id="text" name="text"></form>
<form action="/login"><input id="name" name="name"></form>
<a id="logout" href="/logout">Log out</a>
<script>
  const socket = new WebSocket(`ws://${{location.host}}/`)
  const state = document.querySelector("#socket")
  socket.onopen = () => {{ state.textContent = "open" }}
  socket.onclose = () => {{ state.textContent = "closed" }}
  socket.onmessage = (event) => {{
    for (const message of JSON.parse(event.data).messages || []) {{
      const item = document.createElement("li")
      item.textContent = message.content
      document.querySelector("#said").append(item)
    }}
  }}
</script>"""


def page(request: HttpRequest) -> HttpResponse:
    messages = request.conversation.messages.window(50)  # type: ignore[attr-defined]
    items = format_html_join("", "<li>{}</li>", ((m["content"],) for m in messages))
    return HttpResponse(format_html(PAGE, request.user.get_username() or "nobody", items))


def say(request: HttpRequest) -> HttpResponse:
    request.conversation.messages.append("user", request.GET["text"])  # type: ignore[attr-defined]
    return HttpResponseRedirect("/")


def log_in(request: HttpRequest) -> HttpResponse:
    name = request.GET["name"]
    login(request, authenticate(request, username=name, password=name))
    return HttpResponseRedirect("/")


def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponseRedirect("/")


urlpatterns = [
    path("", page),
    path("say", say),
    path("login", log_in),
    path("logout", log_out),
]
application = ProtocolTypeRouter(
    {"http": http, "websocket": ConversationMiddlewareStack(Chat.as_asgi())}
)
