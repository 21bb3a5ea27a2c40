"""For clients written in Python that present a token with the handshake of a websocket."""

from .http.identity import as_subprotocol

__all__ = ["as_subprotocol"]
