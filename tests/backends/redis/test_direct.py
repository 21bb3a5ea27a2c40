"""How an operation gets its connection: how many there may be, and which are used again."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis

from django_convstate.backends.redis.client.deadline import Deadline, DeadlineParser
from tests.support.places import on
from tests.support.ruler import Stopwatch
from tests.support.servers import Server


def test_more_operations_at_once_than_redis_py_allows_connections(
    settings: Any, server: Server
) -> None:
    url, count = f"redis://127.0.0.1:{server.port}/0", 120
    backend = on(settings, url, CONNECTION_POOL_KWARGS={"max_connections": count})
    with server.client() as client, ThreadPoolExecutor(count) as pool:
        client.client_pause(500)
        results = list(pool.map(lambda n: backend.exists(f"a{n}"), range(count)))
    assert results == [False] * count
    backend.close()


def test_to_look_whether_there_is_something_to_read_takes_no_time(server: Server) -> None:
    """As older versions of redis-py do with each connection that is used again."""
    connection = redis.Connection(port=server.port, parser_class=DeadlineParser)
    connection.connect()
    try:
        with Deadline(30), Stopwatch() as watch:
            parser = connection._parser
            assert not parser.read_from_socket(timeout=0, raise_on_timeout=False)
        assert watch.seconds < 10
    finally:
        connection.disconnect()
