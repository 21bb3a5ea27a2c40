"""The small examples, served as their READMEs say, and a visitor with a cookie jar."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

from tests.support.example_site import answers, environment
from tests.support.servers import end, wait_until

ROOT = Path(__file__).parents[2]


@contextmanager
def serving(url: str, log: Path, *command: str, **env: str) -> Iterator[None]:
    """Run a Python command in the root of the project until the block ends, and wait first until it
    answers at `url`."""
    # A script has its own folder on the path, and not ours.
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment(PYTHONPATH=os.pathsep.join(paths), **env),
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        return answers(url)

    try:
        wait_until(is_up)
        yield
    finally:
        end(process)


class Visitor:
    """A browser's cookies, and its forms with their CSRF token."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(CookieJar()), _NoErrors()
        )

    def page(self) -> str:
        with self._opener.open(self._url, timeout=60) as response:
            return str(response.read().decode())

    def say(self, text: str, path: str = "/") -> HTTPResponse:
        """POST the form of the page, and return the response, still to be read."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.page())
        assert token
        data = urllib.parse.urlencode({"text": text, "csrfmiddlewaretoken": token[1]})
        response: HTTPResponse = self._opener.open(self._url + path, data.encode(), timeout=60)
        return response

    def status_without_token(self, text: str, path: str = "/") -> int:
        data = urllib.parse.urlencode({"text": text}).encode()
        with self._opener.open(self._url + path, data, timeout=60) as response:
            return int(response.status)


class _NoErrors(urllib.request.HTTPErrorProcessor):
    """Returns a 403 as it is; redirects are followed."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        if response.status >= 400:
            return response
        return super().http_response(request, response)


def next_event(response: HTTPResponse) -> tuple[str, Any] | None:
    """Read one server-sent event; None: the stream has ended."""
    lines = {}
    while line := response.readline().decode().rstrip("\n"):
        name, value = line.split(": ", 1)
        lines[name] = value
    return (lines["event"], json.loads(lines["data"])) if lines else None


def events(response: HTTPResponse) -> list[tuple[str, Any]]:
    with response:
        return list(iter(lambda: next_event(response), None))
