"""docs/outages.md says the numbers that the code has, and its Python runs."""

import logging
import re
from typing import Any

import pytest
from django.dispatch import receiver
from django.test import Client
from django.urls import include, path

from django_convstate import conversations, signals, tokens
from django_convstate.backends.failover import (
    backend,
    breaker,
    journal,
    last_known,
    offline,
    recovery,
)
from django_convstate.backends.failover.pieces import PIECE_BYTES
from django_convstate.backends.records import TOMBSTONE_SECONDS
from django_convstate.backends.redis.client import config
from django_convstate.backends.toolkit import writer
from django_convstate.conf import Options
from django_convstate.http import health
from tests.support.docs import ROOT, blocks

PAGE = (ROOT / "docs/outages.md").read_text()
# The page as it is read, without its Python.
TEXT = " ".join(re.sub(r"<!--.*?-->|```.*?```", "", PAGE, flags=re.DOTALL).split())

KIB, MIB, HOUR = 2**10, 2**20, 3600
OPTIONS = Options()
TIMEOUT = round(config.DEFAULT_TIMEOUT * 1000)
RESEND = writer._RESEND_SECONDS // HOUR
NUMBERS = [
    f'`"FALLBACK": "{OPTIONS.fallback}"`, the default',
    f"is given {TIMEOUT} ms (`SOCKET_TIMEOUT`",
    f"at most {config.CONNECT_REPLIES * config.DEFAULT_TIMEOUT:.0f} s in all",
    f"costs no more than {TIMEOUT} ms",
    f"costs {TIMEOUT} ms more",
    f"tries the next after {TIMEOUT} ms",
    f"{breaker.FAILURE_THRESHOLD} failures in a row",
    f"for {breaker.FIRST_ANSWER_WAIT:.0f} s at most",
    f"in the last {OPTIONS.outage_memory:.0f} s (`OUTAGE_MEMORY`",
    f"up to {backend.KNOWN_CONVERSATIONS}, and {backend.KNOWN_BYTES // MIB} MiB of memory",
    f"up to {backend.JOURNAL_BYTES // MIB} MiB of memory in each process",
    f"after {breaker.SHORTEST_PROBE_WAIT:.0f} to {2 * breaker.SHORTEST_PROBE_WAIT:.0f} s at first",
    f"longer times up to {breaker.LONGEST_PROBE_WAIT:.0f} s",
    f"deleted less than {TOMBSTONE_SECONDS // HOUR} hours ago",
    f"more than {PIECE_BYTES // KIB} KiB in one change",
    f"for the last {offline.MAX_USED} of them",
    f"at first and up to {recovery.LONGEST_RETRY_WAIT:.0f} s later",
    f"for {tokens.UNSAVED_SECONDS // HOUR - 1} hours after its client last got a token",
    "at most 1.5 times as much",  # as test_growth.py measures
    f"1/{last_known.SHARE} of the {backend.KNOWN_BYTES // MIB} MiB",
    f"what it can in {recovery.CLOSE_TIMEOUT:.0f} s",
    f"After {(TOMBSTONE_SECONDS - journal.CLOCK_SLACK) // HOUR} hours Redis may not know",
    f"cannot be sent again within {RESEND} hours",
    f"at most {health.MAX_AGE:.0f} s old",
    f"never after more than {health.MAX_AGE:.0f} s",
    "it takes 2 threads of its own",  # as test_health.py counts
]
OTHERS = [
    "(W014)",
    "(W002;",
    "503",
    "200",
    "Redis 7 or Valkey; Redis 6.2",
    "write 1`",
    "max-lag 10`",
]


def test_each_number_is_that_of_the_code() -> None:
    rest = TEXT
    for words in NUMBERS + OTHERS:
        assert words in rest, words
        rest = rest.replace(words, "")
    rest = re.sub(r"\b\d\. \*\*", "", rest)  # the numbers of a list
    assert not re.findall(r".{20}\d.*?\b", rest), "say where these are from"
    assert recovery.SHORTEST_RETRY_WAIT == 1, "a second at most at first"
    assert health.HEALTH_TIMEOUT + health.STAFF_TIMEOUT < 1


def run(words: str, **names: Any) -> dict[str, Any]:
    (block,) = [block for block in blocks(PAGE, "python") if words in block]
    exec(compile(block, "docs/outages.md", "exec"), names)
    return names


def test_the_example_of_a_receiver_is_told(caplog: pytest.LogCaptureFixture) -> None:
    # Dispatch holds the function weakly.
    names = run("@receiver", receiver=receiver, logger=logging.getLogger("of the project"))
    signals.backend_degraded.send(None, reason="It is away.")
    assert "Conversations go on in memory: It is away." in caplog.text
    assert signals.backend_degraded.disconnect(names["alert"])


def test_the_example_of_health_runs() -> None:
    names = run("health.using_fallback", conversations=conversations)
    assert names["health"].connected


class Urls:
    urlpatterns = run("urlpatterns", path=path, include=include)["urlpatterns"]


def test_the_example_of_urls_serves_health(settings: Any) -> None:
    settings.ROOT_URLCONF = Urls
    assert Client().get("/health/").json() == {"status": "ok"}
    assert Client().get("/health/live/").json() == {"status": "ok"}
