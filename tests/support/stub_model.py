"""An endpoint that speaks the streaming part of OpenAI's Chat Completions API, and says what a
test tells it to."""

import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, Queue
from typing import Any

END = object()
MODEL = "stub-1"


class StubModel:
    """What it was asked, and what it is to say."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.words: Queue[Any] = Queue()  # strings; bytes, which are sent as they are; END
        self.status = 200
        self.left = threading.Event()  # a client has hung up in the middle of an answer

    def will_say(self, *words: str) -> None:
        """Let the next answer consist of these, the last of which ends it."""
        for word in (*words, END):
            self.words.put(word)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, stub: StubModel) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.stub = stub


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        stub = self.server.stub
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        stub.asked.append({"path": self.path, **body})
        self.send_response(stub.status)
        is_well = stub.status == 200
        self.send_header("Content-Type", "text/event-stream" if is_well else "application/json")
        self.end_headers()
        if is_well:
            self._answer(stub)
        else:
            self.wfile.write(b'{"error": {"message": "No such model."}}')

    def _answer(self, stub: StubModel) -> None:
        while (word := self._next_word(stub)) is not END:
            if word is None:
                stub.left.set()
                return
            if isinstance(word, bytes):
                self.wfile.write(word)
                continue
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            self._send({"choices": [choice]})
        self._send({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        counts = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
        self._send({"choices": [], "usage": counts})
        self.wfile.write(b"data: [DONE]\n\n")

    def _next_word(self, stub: StubModel) -> Any:
        """Return what to say next; None: nobody listens any more."""
        while True:
            try:
                return stub.words.get(timeout=0.05)
            except Empty:
                readable, _, _ = select.select([self.connection], [], [], 0)
                if readable and not self.connection.recv(1, socket.MSG_PEEK):
                    return None

    def _send(self, part: dict[str, Any]) -> None:
        whole = {"id": "c1", "object": "chat.completion.chunk", "created": 0, "model": MODEL}
        self.wfile.write(f"data: {json.dumps(whole | part)}\n\n".encode())

    def log_message(self, *args: Any) -> None:
        """Stay silent."""


@contextmanager
def stub_model(port: int) -> Iterator[StubModel]:
    stub = StubModel()
    with _Server(port, stub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()
