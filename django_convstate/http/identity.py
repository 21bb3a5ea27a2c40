"""Which conversation a request presents, and how the response tells which one it was.

A client holds a token, the signed id, in a cookie; or, if HEADER_NAME is set, in a header, which
takes precedence over the cookie. Without a token, or with one that we did not sign, a request has
no conversation yet.
"""

import logging

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.cache import patch_cache_control, patch_vary_headers

from .. import tokens
from ..conf import Options
from ..tracebacks import Hidden

logger = logging.getLogger("django_convstate")


def presented_id(request: HttpRequest, options: Options) -> str | None:
    """Return the id in the request's token; None without a token that we signed."""
    token = presented_token(request, options)
    id = tokens.unsign_token(token) if token else None
    if token and id is None:
        logger.warning(
            "A conversation token has no valid signature: its client gets a new conversation. If "
            "there are many of these, SECRET_KEY was changed: put the old one into "
            "SECRET_KEY_FALLBACKS."
        )
    return id


def presented_token(request: HttpRequest, options: Options) -> str | None:
    """Return the token in the request's header or cookie, with an unchecked signature."""
    return _header_token(request, options) or request.COOKIES.get(options.cookie_name)


def hide_token(request: HttpRequest, options: Options) -> None:
    """Have an error report show the request's token as stars, whatever cookie or header it is in:
    Django hides only those whose names look like a secret. To all others it is what it was."""
    values: list[tuple[dict[str, str], str]] = [(request.COOKIES, options.cookie_name)]
    if options.cookie_name in request.COOKIES:
        values.append((request.META, "HTTP_COOKIE"))
    if options.header_name:
        values.append((request.META, f"HTTP_{options.header_name.upper().replace('-', '_')}"))
    for mapping, name in values:
        if name in mapping:
            mapping[name] = Hidden(mapping[name])


def is_cookie_secure(options: Options) -> bool:
    """Tell whether browsers send the cookie over HTTPS only: as set, else as the session's."""
    secure = options.cookie_secure
    return settings.SESSION_COOKIE_SECURE if secure is None else secure


def mark_private(response: HttpResponseBase, options: Options) -> None:
    """Keep shared caches from storing a response that was made from a conversation."""
    patch_vary_headers(response, ["Cookie", *filter(None, [options.header_name])])
    patch_cache_control(response, private=True)


def set_token(
    request: HttpRequest, response: HttpResponseBase, token: str, options: Options
) -> None:
    """Give the client this token, unless it has it already."""
    cookie = request.COOKIES.get(options.cookie_name)
    if options.header_name is not None and cookie != token:
        # A client that sent the cookie does not need the header, which a script could read: the
        # cookie is HttpOnly.
        response.headers[options.header_name] = token
        if _header_token(request, options):
            return
    if cookie != token or options.cookie_age is not None:
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


def delete_token(
    request: HttpRequest, response: HttpResponseBase, options: Options, unsaved_id: str | None
) -> None:
    """Delete the cookie of a conversation that is gone; not if the request presented its token in
    the header, nor the cookie of a websocket whose conversation, `unsaved_id`, is to be stored
    yet."""
    cookie = request.COOKIES.get(options.cookie_name)
    if cookie is None or _header_token(request, options):
        return
    if tokens.is_unsaved(cookie) and tokens.unsign_token(cookie) == unsaved_id:
        return
    response.delete_cookie(
        options.cookie_name,
        path=options.cookie_path,
        domain=options.cookie_domain,
        samesite=options.cookie_samesite,  # type: ignore[arg-type]
    )


def _header_token(request: HttpRequest, options: Options) -> str | None:
    return request.headers.get(options.header_name) if options.header_name else None
