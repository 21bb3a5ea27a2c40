"""A browser that keeps its cookies, through Django's own test clients."""

from http.cookies import SimpleCookie
from typing import Any

from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client


class Browser:
    """A client that keeps cookies, over WSGI or over ASGI."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.client: Any = Client() if way == "sync" else AsyncClient()

    def get(self, view: str, **options: Any) -> Any:
        get = self.client.get if self.way == "sync" else async_to_sync(self.client.get)
        return get(f"/{self.way}/{view}", **options)

    @property
    def cookies(self) -> SimpleCookie:
        cookies: SimpleCookie = self.client.cookies
        return cookies

    @property
    def token(self) -> str | None:
        return self.cookies["conversation"].value if "conversation" in self.cookies else None


def varies(response: Any) -> set[str]:
    return {name.strip() for name in response.headers.get("Vary", "").split(",") if name}
