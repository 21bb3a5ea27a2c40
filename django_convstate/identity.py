"""For clients written in Python that present a token with the handshake of a websocket.

Works without Channels. The server's side is in channels/handshake.py.
"""

import base64
from typing import Final

# A client offers the first to say that it speaks our protocol, and the second with its token.
SUBPROTOCOL: Final = "convstate"
TOKEN_SUBPROTOCOL: Final = f"{SUBPROTOCOL}.token."


def as_subprotocol(token: str) -> str:
    """Return the subprotocol with which a client presents `token`."""
    return TOKEN_SUBPROTOCOL + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
