"""What is not accepted, and how to say so: to a browser in a page, to other clients in JSON."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest

from django_convstate import BackendUnavailable, ConversationBusy, ConversationInterrupted

# Characters.
MAX_TEXT: Final = 2000
MAX_ID: Final = 64


class Refused(Exception):
    """A request that nothing is done about, or nothing can be.

    Attributes:
        status: of the HTTP response.
        code: for programs.
        message: for people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def as_json(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message}


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what the store may raise into a refusal."""
    try:
        yield
    except ConversationInterrupted as error:
        raise Refused(
            409, "ended", "This conversation has just ended. Send it again, and a new one begins."
        ) from error
    except ConversationBusy as error:
        raise Refused(
            503, "busy", "I am still busy with what was said before. Please try again."
        ) from error
    except BackendUnavailable as error:
        raise Refused(
            503, "unavailable", "My memory cannot be reached at the moment. Please try again."
        ) from error


def text_of(value: object) -> str:
    """Return what the visitor says, if it is something: a string of 1 to `MAX_TEXT` characters.

    Raises:
        Refused: it is not.
    """
    if not isinstance(value, str):
        raise Refused(400, "missing_text", 'There is no text. Send {"text": "..."}.')
    text = value.replace("\r\n", "\n").strip()
    if not text:
        raise Refused(400, "empty_text", "The text is empty.")
    if len(text) > MAX_TEXT:
        raise Refused(
            413, "text_too_long", f"The text has {len(text)} characters; the limit is {MAX_TEXT}."
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused(400, "bad_text", "The text has half a surrogate pair in it.") from None
    return text


def said(content: object) -> tuple[str, str | None]:
    """Return what a client says, and its own name for that message, if it has one.

    Raises:
        Refused: `content` is not {"text": ...}, or {"text": ..., "id": ...}.
    """
    if not isinstance(content, dict):
        raise Refused(400, "bad_json", "That is not a JSON object.")
    id = content.get("id")
    if not (id is None or (isinstance(id, str) and id.isascii() and 0 < len(id) <= MAX_ID)):
        raise Refused(400, "bad_id", f"An id is 1 to {MAX_ID} ASCII characters.")
    return text_of(content.get("text")), id


def json_of(request: HttpRequest) -> dict[str, Any]:
    """Return the JSON object in the body.

    Raises:
        Refused: there is none.
    """
    if request.content_type != "application/json":
        raise Refused(415, "not_json", "Send JSON, with Content-Type: application/json.")
    try:
        body = json.loads(request.body)
    except RequestDataTooBig:
        raise Refused(413, "body_too_large", "The request is too large.") from None
    except (ValueError, RecursionError):
        raise Refused(400, "bad_json", "The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise Refused(400, "bad_json", "The body is not a JSON object.")
    return body
