"""What is served by websocket."""

from django.urls import path

from .consumers import ChatConsumer

urlpatterns = [path("live", ChatConsumer.as_asgi())]
