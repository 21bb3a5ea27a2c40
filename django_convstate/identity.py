"""Which conversation a request means, and how the response says which one it was.

A client holds a token, the signed id, in a cookie; or, if HEADER_NAME is set, in a header, which
then counts for more than the cookie. Without a token, or with one that we did not sign, a request
has no conversation yet.
"""

import logging

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.cache import patch_cache_control, patch_vary_headers

from . import ids
from .conf import Options
from .conversation import Conversation

logger = logging.getLogger("django_convstate")


def presented_id(request: HttpRequest, options: Options) -> str | None:
    """Return the id that the request's token stands for; None without a token of ours."""
    token = _header_token(request, options) or request.COOKIES.get(options.cookie_name)
    if not token:
        return None
    id = ids.unsign_token(token)
    if id is None:
        logger.warning("A conversation token has no valid signature: treated as absent.")
    return id


def mark_private(response: HttpResponseBase, options: Options) -> None:
    """Keep caches from giving a response made from one conversation to anybody else."""
    patch_vary_headers(response, ["Cookie", *filter(None, [options.header_name])])
    patch_cache_control(response, private=True)


def hand_out(
    request: HttpRequest, response: HttpResponseBase, conversation: Conversation, options: Options
) -> None:
    """Give the client the token of a stored conversation, unless it has it already."""
    token, cookie = conversation.token, request.COOKIES.get(options.cookie_name)
    if options.header_name is not None and cookie != token:
        # To whoever has the cookie no script need show the token: the cookie is HttpOnly.
        response.headers[options.header_name] = token
        if _header_token(request, options):
            return
    if cookie != token or options.cookie_age is not None:
        secure = options.cookie_secure
        response.set_cookie(
            options.cookie_name,
            token,
            max_age=options.cookie_age,
            path=options.cookie_path,
            domain=options.cookie_domain,
            secure=settings.SESSION_COOKIE_SECURE if secure is None else secure,
            httponly=options.cookie_httponly,
            samesite=options.cookie_samesite,  # type: ignore[arg-type]
        )


def take_back(request: HttpRequest, response: HttpResponseBase, options: Options) -> None:
    """Delete the cookie of a conversation that is no more; not for what a header said."""
    if options.cookie_name in request.COOKIES and not _header_token(request, options):
        response.delete_cookie(
            options.cookie_name,
            path=options.cookie_path,
            domain=options.cookie_domain,
            samesite=options.cookie_samesite,  # type: ignore[arg-type]
        )


def _header_token(request: HttpRequest, options: Options) -> str | None:
    return request.headers.get(options.header_name) if options.header_name else None
