"""The server is down when the project starts, in processes of its own."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from django_convstate import tokens
from tests.chaos.world import PASSWORD, TEXT, World
from tests.support.servers import free_ports, wait_until

ROOT = Path(__file__).parents[2]
SETTINGS = """
from tests.settings import *
CONVERSATION_STATE_BACKEND = "redis"
CACHES = {{"default": {{"BACKEND": "django_redis.cache.RedisCache", "LOCATION": {url!r}}}}}
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {database!r}}}}}
DEBUG = True
"""


class Browser:
    """Talks to a site over HTTP, and keeps its cookies."""

    def __init__(self, port: int) -> None:
        self._site = f"http://127.0.0.1:{port}"
        self._cookies = CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self._cookies)
        )
        self.tokens: list[str] = []

    def get(self, path: str) -> Any:
        with self._opener.open(f"{self._site}{path}", timeout=10) as response:
            return response.read()  # anything but a success is raised

    def reaches_it(self) -> bool:
        try:
            return bool(self.get("/sync/ignore"))
        except URLError:
            return False

    def say(self, text: str) -> list[str]:
        """Return what was said so far."""
        messages: list[str] = json.loads(self.get(f"/sync/say?text={text}"))["messages"]
        (cookie,) = self._cookies
        self.tokens.append(str(cookie.value))
        return messages


@contextmanager
def process(command: list[str], log: Path, **options: Any) -> Iterator[None]:
    with log.open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
    try:
        yield
    finally:
        running.terminate()
        running.wait()


@pytest.mark.chaos
def test_a_server_down_at_boot_costs_no_error(world: World, tmp_path: Path) -> None:
    world.server.kill()
    settings = SETTINGS.format(url=world.url, database=str(tmp_path / "db.sqlite3"))
    (tmp_path / "boot_settings.py").write_text(settings)
    options: dict[str, Any] = {
        "cwd": tmp_path,
        "env": {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "boot_settings",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
            "TMPDIR": str(tmp_path),
        },
    }
    manage = [sys.executable, "-m", "django"]
    subprocess.run([*manage, "migrate"], check=True, timeout=60, capture_output=True, **options)
    port, log = free_ports(1)[0], tmp_path / "log"
    began = time.monotonic()
    with process([*manage, "runserver", "--noreload", str(port)], log, **options):
        browser = Browser(port)
        wait_until(browser.reaches_it)
        world.note(f"serves {time.monotonic() - began:.1f} s after its start")
        said = [f"{TEXT}-{number}" for number in range(4)]
        assert [browser.say(text) for text in said[:3]][-1] == said[:3]
        id = str(tokens.unsign_token(browser.tokens[0]))
        back = world.restart()
        with world.server.client() as client:
            wait_until(lambda: client.llen(f"convstate:{{{id}}}:messages") == 3)
        world.note(f"home {time.monotonic() - back:.1f} s after the first PONG")
        assert browser.say(said[3]) == said
        read = [tokens.read_token(token) for token in browser.tokens]
        assert {each and each.id for each in read} == {id}
        assert [each and each.is_unsaved for each in read] == [True] * 3 + [False]
    ours = [line for line in log.read_text().splitlines() if "GET /sync/" not in line]
    assert not any(secret in line for line in ours for secret in ("Traceback", PASSWORD, TEXT, id))
    world.check()
