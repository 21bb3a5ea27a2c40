"""The page at /, and what it and other clients talk to at /api/."""

from django.urls import path

from .concierge import api, pages, stream

urlpatterns = [
    path("", pages.chat, name="chat"),
    path("new", pages.new, name="new"),
    path("former", pages.former, name="former"),
    path("open", pages.open_one, name="open"),
    path("api/messages", api.MessagesView.as_view(), name="api-messages"),
    path("api/stream", stream.stream, name="api-stream"),
    path("api/new", api.NewView.as_view(), name="api-new"),
    path("api/conversations", api.ConversationsView.as_view(), name="api-conversations"),
    path("api/conversation", api.ConversationView.as_view(), name="api-conversation"),
]
