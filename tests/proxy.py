"""A TCP proxy between a client and a server, which can lose a reply or fall silent."""

import contextlib
import selectors
import socket
import threading
from types import TracebackType


class Proxy:
    """Listens on `port` and passes everything on, but for what it is told to spoil."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, tuple[socket.socket, bool]] = {}
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._stopped = threading.Event()
        self._lose = threading.Event()
        self.silent = False
        self.lost = 0
        self.carried = 0

    def lose_next_reply(self) -> None:
        """Break the connection in place of passing the server's next reply on."""
        self._lose.set()

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()
        for peer in list(self._peers):
            peer.close()
        self._listener.close()
        self._selector.close()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listener:
                    self._accept()
                elif not self.silent and isinstance(key.fileobj, socket.socket):
                    self._pass_on(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._server_port))
        for end, other, is_server in ((client, server, False), (server, client, True)):
            self._peers[end] = other, is_server
            self._selector.register(end, selectors.EVENT_READ)

    def _pass_on(self, end: socket.socket) -> None:
        if end not in self._peers:
            return
        other, is_server = self._peers[end]
        with contextlib.suppress(OSError):
            data = end.recv(65536)
            if data and is_server and self._lose.is_set():
                self._lose.clear()
                self.lost += 1
                data = b""
            if data:
                self.carried += len(data)
                other.sendall(data)
                return
        for closing in (end, other):
            self._selector.unregister(closing)
            del self._peers[closing]
            closing.close()
