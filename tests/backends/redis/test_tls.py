"""The redis backend through TLS."""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from django_convstate import BackendUnavailable, ConversationStore
from tests.support.places import on
from tests.support.servers import Server
from tests.support.tls import tls_proxy

# Where any password will do, so that it is there to be given away.
PASSWORD = "hunter2"


class TestTLS:
    @pytest.fixture
    def port(self, server: Server, tmp_path: Path) -> Iterator[int]:
        """Speak TLS in front of the server, for the binary of the tests does not."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        with tls_proxy(server.port, context) as port:
            yield port

    def test_a_conversation_is_saved_and_loaded_through_tls(
        self, settings: Any, port: int, tmp_path: Path
    ) -> None:
        pool = {"ssl_ca_certs": str(tmp_path / "ca.pem")}
        store = ConversationStore(
            on(settings, f"rediss://127.0.0.1:{port}/0", CONNECTION_POOL_KWARGS=pool)
        )
        conversation = store.create()
        conversation.messages.append("user", "hello")
        conversation.save()

        async def reply() -> None:
            known = await store.aget(conversation.id)
            known.messages.append("assistant", "hi")
            await known.asave()
            assert (await store.ahealth()).connected
            await store.aclose()

        asyncio.run(reply())
        known = store.get(conversation.id)
        assert [message["content"] for message in known.messages.window(9)] == ["hello", "hi"]
        assert store.health().connected
        store.close()

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    @pytest.mark.parametrize("place", ["CONNECTION_POOL_KWARGS", "REDIS_CLIENT_KWARGS", "LOCATION"])
    @pytest.mark.parametrize("unverified", [None, "none", ssl.CERT_NONE])
    def test_a_certificate_that_is_not_to_be_verified_is_not(
        self, settings: Any, port: int, unverified: Any, place: str, host: str
    ) -> None:
        """As django-redis has it, where CACHES says None. By one of the names it is for another."""
        url = f"rediss://{host}:{port}/0"
        options: dict[str, Any] = {place: {"ssl_cert_reqs": unverified}}
        if place == "LOCATION":
            url, options = f"{url}?ssl_cert_reqs=none", {}
        backend = on(settings, url, **options)
        assert backend.exists("a") is False

        async def visit() -> None:
            assert await backend.aexists("a") is False
            await backend.aclose()

        asyncio.run(visit())
        backend.close()

    @pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
    def test_an_untrusted_certificate_is_refused(
        self, settings: Any, port: int, tmp_path: Path, address: str
    ) -> None:
        # By name it is the wrong certificate, though the authority is known.
        pool = {"ssl_ca_certs": str(tmp_path / "ca.pem")} if address == "localhost" else {}
        backend = on(
            settings,
            f"rediss://:{PASSWORD}@{address}:{port}/0",
            CONNECTION_POOL_KWARGS=pool,
        )
        with pytest.raises(BackendUnavailable, match="certificate") as caught:
            backend.load("a", 1)
        assert PASSWORD not in f"{caught.value} {caught.value.__cause__}"
        with pytest.raises(BackendUnavailable, match="certificate"):
            asyncio.run(backend.aload("a", 1))
        assert "certificate" in backend.health().detail
        backend.close()
