"""The documents of the project, and the code in them."""

import re
from pathlib import Path
from typing import Any

from channels.testing import WebsocketCommunicator

PATIENCE = 30.0  # seconds for whatever has to come
ROOT = Path(__file__).parents[2]

README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


async def ask(application: Any, answers: int = 1, **content: Any) -> Any:
    """Send one message to a websocket, and return the answers, which are all that it hears."""
    socket = WebsocketCommunicator(application, "/chat", [(b"origin", b"http://testserver")])
    await socket.connect(PATIENCE)
    await socket.send_json_to(content)
    heard = [await socket.receive_json_from(PATIENCE) for _ in range(answers)]
    assert await socket.receive_nothing()
    await socket.disconnect(timeout=PATIENCE)
    return heard
