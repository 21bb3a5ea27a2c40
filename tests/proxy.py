"""Proxies between a client and a server: one can lose a reply or fall silent, one speaks TLS."""

import asyncio
import contextlib
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator
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


@contextlib.contextmanager
def tls_proxy(server_port: int, context: ssl.SSLContext) -> Iterator[int]:
    """Take the TLS off what arrives at the port that is yielded, and pass it on."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", server_port)
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    async def run() -> None:
        listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        # What a client says that breaks off the handshake is no news.
        asyncio.get_running_loop().set_exception_handler(lambda loop, about: None)
        port.append(listener.sockets[0].getsockname()[1])
        ready.set()
        await asyncio.to_thread(stopped.wait)
        listener.close()

    port: list[int] = []
    ready, stopped = threading.Event(), threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        ready.wait(10)
        yield port[0]
    finally:
        stopped.set()
        thread.join()
