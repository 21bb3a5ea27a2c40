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


def statements(text: str) -> list[str]:
    """Return the paragraphs, the items of lists and the rows of tables of a page, each in one line,
    without headings and code."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^#.*$", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"^\|.*\n\|[-| :]+\|$", "\n", text, flags=re.MULTILINE)  # the head of a table
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        for statement in re.split(r"^(?:\s*(?:[-*]|\d+\.) |(?=\|))", paragraph, flags=re.MULTILINE):
            found.append(" ".join(statement.split()))
    return [statement for statement in found if statement]


async def ask(application: Any, answers: int = 1, **content: Any) -> Any:
    """Send one message to a websocket, and return the answers, which are all that it hears."""
    socket = WebsocketCommunicator(application, "/chat", [(b"origin", b"http://testserver")])
    await socket.connect(PATIENCE)
    await socket.send_json_to(content)
    heard = [await socket.receive_json_from(PATIENCE) for _ in range(answers)]
    assert await socket.receive_nothing()
    await socket.disconnect(timeout=PATIENCE)
    return heard
