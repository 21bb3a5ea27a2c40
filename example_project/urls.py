"""The page at /, and what it and other clients talk to at /api/."""

from django.urls import path

from .concierge import api, pages, stream

urlpatterns = [
    path("", pages.chat, name="chat"),
    path("new", pages.begin_anew, name="new"),
    path("api/messages", api.MessagesView.as_view(), name="api-messages"),
    path("api/stream", stream.stream, name="api-stream"),
    path("api/conversation", api.ConversationView.as_view(), name="api-conversation"),
]
