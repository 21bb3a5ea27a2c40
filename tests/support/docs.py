"""The documents of the project, and the code in them."""

import re
from pathlib import Path
from typing import Any

from channels.testing import WebsocketCommunicator

ROOT = Path(__file__).parents[2]

README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


async def ask(application: Any, **content: Any) -> Any:
    """Send one message to a websocket, and return all that it hears."""
    socket = WebsocketCommunicator(application, "/chat", [(b"origin", b"http://testserver")])
    await socket.connect(5)
    await socket.send_json_to(content)
    heard = [await socket.receive_json_from(5)]
    while not await socket.receive_nothing():
        heard.append(await socket.receive_json_from(5))
    await socket.disconnect(timeout=5)
    return heard
