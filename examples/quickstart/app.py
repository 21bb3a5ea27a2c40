"""A chat that remembers, in one file: `python examples/quickstart/app.py runserver`."""

import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.shortcuts import redirect
from django.template import engines
from django.urls import path

from django_convstate.typing import ConversationRequest

settings.configure(
    DEBUG=True,
    SECRET_KEY=os.environ.get("SECRET_KEY", "for this example alone"),
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django_convstate"],
    MIDDLEWARE=[
        "django.middleware.csrf.CsrfViewMiddleware",
        "django_convstate.middleware.ConversationMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
PAGE = """<!doctype html><html lang="en"><title>Quickstart</title>
<h1>A chat that remembers</h1>
{% for message in messages %}<p><b>{{ message.role }}</b> {{ message.content }}</p>{% endfor %}
<form method="post">{% csrf_token %}
  <label>Say <input name="text" required autofocus></label> <button>Send</button>
</form></html>"""


def chat(request: ConversationRequest) -> HttpResponse:
    conversation = request.conversation
    if text := request.POST.get("text", "").strip():
        conversation.messages.append("user", text)
        if text.lower().startswith("my name is "):
            conversation["name"] = text[11:].strip(" .!")
        turns = conversation.incr("turns")
        name = conversation.get("name", "stranger")
        conversation.messages.append("assistant", f"You said “{text}”, {name}. Turn {turns}.")
        return redirect("/")
    context = {"messages": conversation.messages.window(20)}
    return HttpResponse(engines["django"].from_string(PAGE).render(context, request))


urlpatterns = [path("", chat)]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
