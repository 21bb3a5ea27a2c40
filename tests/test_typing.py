"""What projects write in annotations. Whether it is right is checked by mypy, which reads this."""

from django.http import HttpResponse
from django.test import AsyncRequestFactory, RequestFactory

from django_convstate.middleware import ConversationMiddleware
from django_convstate.typing import ConversationRequest


def view(request: ConversationRequest) -> HttpResponse:
    id: str = request.conversation.messages.append("user", request.GET["text"])
    return HttpResponse(id)


async def aview(request: ConversationRequest) -> HttpResponse:
    conversation = await request.aconversation()
    id: str = conversation.messages.append("user", request.GET["text"])
    return HttpResponse(id)


def test_a_view_with_annotations_is_a_view() -> None:
    response = ConversationMiddleware(view)(RequestFactory().get("/?text=hello"))  # type: ignore[arg-type]
    assert isinstance(response, HttpResponse)
    assert response.cookies["conversation"].value


async def test_so_is_an_async_one() -> None:
    middleware = ConversationMiddleware(aview)  # type: ignore[arg-type]
    response = await middleware(AsyncRequestFactory().get("/?text=hello"))  # type: ignore[misc]
    assert response.cookies["conversation"].value
