"""Starts `make demo` as the README says, talks to it in each way there is, and stops it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import HTTPCookieProcessor, Request, build_opener

from websockets.sync.client import connect

ROOT = Path(__file__).parent.parent
PATIENCE = 300  # seconds; on a new machine, make installs first


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Visitor:
    """Keeps cookies, as a browser does."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.cookies = CookieJar()
        self.opener = build_opener(HTTPCookieProcessor(self.cookies))

    def page(self) -> str:
        with self.opener.open(f"{self.base}/", timeout=10) as response:
            text: str = response.read().decode()
            return text

    def call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(
            self.base + path, data, {"Content-Type": "application/json"}, method=method
        )
        with self.opener.open(request, timeout=10) as response:
            return json.loads(response.read() or b"null")

    def stream(self, text: str) -> list[Any]:
        """Return the events of an answer that is streamed."""
        data = json.dumps({"text": text}).encode()
        request = Request(f"{self.base}/api/stream", data, {"Content-Type": "application/json"})
        with self.opener.open(request, timeout=30) as response:
            blocks = response.read().decode().split("\n\n")
        return [json.loads(block.removeprefix("data: ")) for block in blocks if block]

    def speak(self, text: str, seen: int) -> list[Any]:
        """Return the events of an answer by websocket, and what was missed before it."""
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.cookies)
        url = f"{self.base.replace('http', 'ws', 1)}/live?seen={seen}"
        events: list[Any] = []
        headers = {"Cookie": cookies, "Origin": self.base}
        with connect(url, additional_headers=headers, proxy=None) as socket:
            while not events or events[-1]["type"] != "ready":
                events.append(json.loads(socket.recv(timeout=10)))
            socket.send(json.dumps({"text": text}))
            while not is_whole(events[-1]):
                events.append(json.loads(socket.recv(timeout=10)))
        return events


def is_whole(event: Any) -> bool:
    return event["type"] == "messages" and event["messages"][-1]["role"] == "assistant"


def wait_until_served(visitor: Visitor, server: subprocess.Popen[bytes]) -> str:
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        if server.poll() is not None:
            sys.exit(f"make demo ended with {server.returncode}")
        try:
            return visitor.page()
        except (URLError, ConnectionError):
            time.sleep(0.2)
    sys.exit(f"make demo did not answer within {PATIENCE} s")


def hold_a_conversation(base: str) -> None:
    visitor, stranger = Visitor(base), Visitor(base)
    said = ["I want a 3 day trip to Jaipur", "relaxed please, we love food and forts"]
    for number, text in enumerate(said, 1):
        answer = visitor.call("POST", "/api/messages", {"text": text})
        assert answer["message_count"] == 2 * number, answer
        assert answer["reply"]["content"], answer
    assert answer["state"]["domain"], answer
    assert "Jaipur" in json.dumps(answer["state"]["preferences"]), answer
    assert said[0] in visitor.page()
    check_streamed(visitor.stream("make it 4 days"), seen=6)
    missed, *events = visitor.speak("make it 5 days", seen=4)
    assert len(missed["messages"]) == 2, missed
    check_streamed(events, seen=8)
    assert stranger.call("GET", "/api/conversation")["messages"] == []
    visitor.call("DELETE", "/api/conversation")
    assert visitor.call("GET", "/api/conversation")["messages"] == []


def check_streamed(events: list[Any], seen: int) -> None:
    texts = [event["text"] for event in events if event["type"] == "answer"]
    assert len(texts) > 5, events
    assert events[-1]["seen"] == seen, events[-1]
    assert events[-1]["messages"][-1]["content"] == texts[-1], events[-1]


def main() -> None:
    address = f"127.0.0.1:{free_port()}"
    server = subprocess.Popen(
        ["make", "demo", f"ADDRESS={address}"],
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        page = wait_until_served(Visitor(f"http://{address}"), server)
        assert "<title>" in page
        hold_a_conversation(f"http://{address}")
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(timeout=30)
    sys.stdout.write(
        "make demo: served a page and held a conversation by POST, event stream and websocket.\n"
    )


if __name__ == "__main__":
    main()
