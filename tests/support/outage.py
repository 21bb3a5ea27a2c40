"""Stores for persons to come to, one of them with an outage."""

import itertools
from typing import Any

from django_convstate import ConversationStore, conversations, get_backend
from django_convstate.tokens import read_token
from tests.settings import PATIENT
from tests.support.people import HEADER, Person
from tests.support.servers import Server, no_thread_of_ours_is_left, wait_until


class Place:
    """Where conversations are kept."""

    def __init__(self, settings: Any, backend: str, alias: str = "default") -> None:
        self._settings = settings
        settings.CONVERSATION_STATE_BACKEND = backend
        self.can_list = backend != "cache"
        self.use(alias)

    def use(self, alias: str) -> None:
        self._settings.CONVERSATION_STATE = {
            "CACHE_ALIAS": alias,
            "HEADER_NAME": HEADER,
            "FALLBACK": None,
        }

    def knows_absent(self, other: Person) -> bool:
        """Whether it can be told from what is there, by what the other presents."""
        return True

    def begin_outage(self) -> None:
        pass

    def end_outage(self) -> None:
        pass

    def clear(self) -> None:
        if self.can_list:  # else the cache is cleared anyway
            conversations.purge(everything=True)


class PlaceWithOutage(Place):
    """A Redis that is stopped when the other comes.

    Each alias of it is as another process is: a backend that knows nothing of what others have seen
    or do in the outage.
    """

    _numbers = itertools.count()

    def __init__(self, settings: Any, server: Server, *, is_known: bool) -> None:
        entry = {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{server.port}/0",
            "OPTIONS": PATIENT,
        }
        self._processes = [f"process {next(self._numbers)}" for _ in range(4)]
        settings.CACHES = {**settings.CACHES, **dict.fromkeys(self._processes, entry)}
        self._server, self._is_known = server, is_known
        super().__init__(settings, "redis", self._processes.pop())

    def use(self, alias: str) -> None:
        self._settings.CONVERSATION_STATE = {"CACHE_ALIAS": alias, "HEADER_NAME": HEADER}

    def knows_absent(self, other: Person) -> bool:
        # Who is not logged in may go on with a conversation that nobody has claimed, where nothing
        # is known of it; what they say is checked when it is replayed.
        token = read_token(other.token)
        return token is None or token.is_owned or "sessionid" in other.cookies

    def begin_outage(self) -> None:
        if not self._is_known:
            self._go_to_another_process()
        self._server.kill()

    def end_outage(self) -> None:
        self._server.start()
        self._go_to_another_process()

    def claim_elsewhere(self, id: str, owner: str) -> None:
        """Have another process claim a conversation."""
        backend = get_backend("redis", cache_alias=self._processes.pop(0), fallback=None)
        ConversationStore(backend).get(id).claim(owner)
        backend.close()

    def clear(self) -> None:
        if self._server.process is None:
            self._server.start()
        conversations.backend.close()
        # Another process may yet wait for a probe, and after the last test the server is stopped.
        wait_until(no_thread_of_ours_is_left)
        with self._server.client() as client:
            client.flushall()

    def _go_to_another_process(self) -> None:
        conversations.backend.close()  # which replays what has waited
        assert conversations.health().pending_replay == 0
        self.use(self._processes.pop())
