"""Which conversation a request presents, and how the response tells which one it was.

A client holds a token, the signed id, in a cookie; or, if HEADER_NAME is set, in a header, which
takes precedence over the cookie. Without a token, or with one that we did not sign, a request has
no conversation yet.
"""

import itertools
import logging
from collections.abc import Container, Iterable
from http.cookies import Morsel
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase, parse_cookie
from django.utils.cache import patch_cache_control, patch_vary_headers

from ..conf import Options
from ..tokens import Token, read_token
from ..tracebacks import Hidden

logger = logging.getLogger("django_convstate")

MAX_TOKENS: Final = 50  # of a request; it has a few at most


def presented(request: HttpRequest, options: Options) -> list[Token]:
    """Return what those of the request's tokens say that we signed, in order of precedence."""
    sent = presented_tokens(request, options)
    found = _read(sent)
    if sent and not found:
        logger.warning(
            "A conversation token has no valid signature: its client gets a new conversation. If "
            "there are many of these, SECRET_KEY was changed: put the old one into "
            "SECRET_KEY_FALLBACKS."
        )
    return found


def presented_tokens(request: HttpRequest, options: Options) -> list[str]:
    """Return the tokens that a request presents, in order of precedence, with unchecked signatures.

    That is the one in the header, where there is one; else each cookie of our name, at most
    `MAX_TOKENS` different ones. There may be several: another path, domain or application may have
    one of the same name. The browser sends that of the more specific path first.
    """
    header = _header_token(request, options)
    return [header] if header else _cookie_tokens(request, options)


def hide_token(request: HttpRequest, options: Options) -> None:
    """Have an error report show the request's token as stars, whatever cookie or header it is in:
    Django hides only those whose names look like a secret. To all others it is what it was."""
    if options.cookie_name in request.COOKIES:
        _hide(request.COOKIES, str(options.cookie_name))
        _hide(request.META, "HTTP_COOKIE")
    if options.header_name:
        _hide(request.META, f"HTTP_{options.header_name.upper().replace('-', '_')}")


def _hide(values: dict[str, str], name: str) -> None:
    if name in values:
        values[name] = Hidden(values[name])


def is_cookie_secure(options: Options) -> bool:
    """Tell whether browsers send the cookie over HTTPS only: as set, else as the session's."""
    secure = options.cookie_secure
    return settings.SESSION_COOKIE_SECURE if secure is None else secure


def mark_private(response: HttpResponseBase, options: Options) -> None:
    """Keep shared caches from storing a response that was made from a conversation."""
    names = ["Cookie", *filter(None, [options.header_name])]
    if response.has_header("Vary") or response.has_header("Cache-Control"):
        patch_vary_headers(response, names)
        patch_cache_control(response, private=True)
    else:  # nothing to be merged with, and Django's functions take three times as long
        response.headers["Vary"] = ", ".join(names)
        response.headers["Cache-Control"] = "private"


def set_token(
    request: HttpRequest, response: HttpResponseBase, token: str, options: Options
) -> None:
    """Give the client this token, unless it has it already."""
    has_cookie = token in _cookie_tokens(request, options)
    if options.header_name is not None and not has_cookie:
        # A client that sent the cookie does not need the header, which a script could read: the
        # cookie is HttpOnly.
        response.headers[options.header_name] = token
        if _header_token(request, options):
            return
    if options.cookie_name is None or (has_cookie and options.cookie_age is None):
        return
    response.set_cookie(
        options.cookie_name,
        token,
        max_age=options.cookie_age,
        path=options.cookie_path,
        domain=options.cookie_domain,
        secure=is_cookie_secure(options),
        httponly=options.cookie_httponly,
        samesite=options.cookie_samesite,  # type: ignore[arg-type]
    )
    if options.cookie_partitioned:
        _partition(response, options.cookie_name)


def delete_token(
    request: HttpRequest, response: HttpResponseBase, options: Options, unsaved_id: str | None
) -> None:
    """Delete the cookie of a conversation that is gone. A request that presented its token in the
    header keeps the cookie, as does a websocket that has yet to store its conversation,
    `unsaved_id`."""
    cookies = _cookie_tokens(request, options)
    if options.cookie_name is None or not cookies or _header_token(request, options):
        return
    if any(token.is_unsaved and token.id == unsaved_id for token in _read(cookies)):
        return
    response.delete_cookie(
        options.cookie_name,
        path=options.cookie_path,
        domain=options.cookie_domain,
        samesite=options.cookie_samesite,  # type: ignore[arg-type]
    )
    if is_cookie_secure(options):
        # Browsers drop what would replace a secure cookie and is not secure itself.
        response.cookies[options.cookie_name]["secure"] = True
    if options.cookie_partitioned:
        _partition(response, options.cookie_name)


class PartitionedMorsel(Morsel[str]):
    """A cookie with the attribute Partitioned, which `http.cookies` knows from Python 3.14 on."""

    def OutputString(self, attrs: Container[str] | None = None) -> str:  # noqa: N802 - as in Morsel
        """Return the cookie as it is sent."""
        return f"{super().OutputString(attrs)}; Partitioned"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.key}>"  # without the token

    __sentry_repr__ = __repr__


def _partition(response: HttpResponseBase, name: str) -> None:
    plain = response.cookies[name]
    partitioned = PartitionedMorsel()
    partitioned.set(plain.key, plain.value, plain.coded_value)
    partitioned.update(plain)
    response.cookies[name] = partitioned


def _read(tokens: Iterable[str]) -> list[Token]:
    return [token for token in map(read_token, tokens) if token is not None]


def _header_token(request: HttpRequest, options: Options) -> str | None:
    return request.headers.get(options.header_name) if options.header_name else None


def _cookie_tokens(request: HttpRequest, options: Options) -> list[str]:
    name = options.cookie_name
    if name is None or name not in request.COOKIES:
        return []
    # `request.COOKIES` has the last one only, and a middleware or a test may have changed that.
    last, header = request.COOKIES[name], request.META.get("HTTP_COOKIE", "")
    if header.count(name) < 2:
        return [last] if last else []
    chunks = map(parse_cookie, header.split(";"))
    sent = [chunk[name] for chunk in chunks if name in chunk]
    distinct = dict.fromkeys(filter(None, [*sent[:-1], last]))
    return list(itertools.islice(distinct, MAX_TOKENS))
