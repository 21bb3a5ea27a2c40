"""A proxy that takes the TLS off: the server of the wheel has none."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator


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
