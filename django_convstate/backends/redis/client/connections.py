"""redis-py's connections and sentinels, made to tell the deadline of an operation that the server
has answered."""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

from redis.asyncio import SSLConnection
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.sentinel import Sentinel

from .deadline import aput_off, put_off

TLS_REPLIES = 2  # replies of the server until a connection with TLS is there: with TLS 1.2, two


class PatientSentinel(Sentinel):
    """Gives each sentinel the time for a reply, and the primary its own."""

    def discover_master(self, service_name: str) -> Any:
        """Ask the sentinels, one after the other, where the primary is."""
        put_off(len(self.sentinels))
        address = super().discover_master(service_name)  # type: ignore[no-untyped-call]
        put_off()
        return address


class AsyncPatientSentinel(AsyncSentinel):
    """See `PatientSentinel`."""

    async def discover_master(self, service_name: str) -> Any:
        """See `PatientSentinel.discover_master`."""
        aput_off(len(self.sentinels))
        address = await super().discover_master(service_name)
        aput_off()
        return address


class PatientTLS(SSLConnection):
    """Connects first, and then begins TLS. redis-py does both in one step of asyncio, which takes
    several replies of the server, and so longer than one that is silent may cost."""

    _connected: socket.socket | None = None

    async def _connect(self) -> None:
        seconds = self.socket_connect_timeout
        async with asyncio.timeout(seconds):
            self._connected = await _connect_to(self.host, self.port)
        try:
            aput_off(TLS_REPLIES)
            self.socket_connect_timeout = seconds and TLS_REPLIES * seconds
            await super()._connect()  # type: ignore[no-untyped-call]
        except BaseException:
            self._connected.close()
            raise
        finally:
            self.socket_connect_timeout = seconds
            self._connected = None

    def _connection_arguments(self) -> Mapping[str, Any]:
        given = dict(super()._connection_arguments())
        if self._connected is not None:
            del given["port"]
            given |= {"sock": self._connected, "server_hostname": given.pop("host")}
        return given


class SentinelPatientTLS(SentinelManagedConnection, PatientTLS):
    """The same, to the primary that sentinels name."""


async def _connect_to(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure: OSError = OSError(f"{host!r} has no address.")
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        try:
            await loop.sock_connect(made, address)
        except OSError as error:
            made.close()
            failure = error
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise failure
