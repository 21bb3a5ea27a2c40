"""The example as tests use it: its settings, and a server such as `make demo` starts."""

import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, Self

from example_project import settings as example
from tests.support.servers import end, free_ports, wait_until

COPIED = (
    *("INSTALLED_APPS", "MIDDLEWARE", "TEMPLATES", "ROOT_URLCONF", "STATIC_URL"),
    *("ASGI_APPLICATION", "CHANNEL_LAYERS", "CONVERSATION_STATE"),
)
ROOT = Path(__file__).parents[2]
OURS = (
    *("CONVERSATION_STATE_BACKEND", "CONVERSATION_TTL", "REDIS_URL", "REDIS_TIMEOUT"),
    *("CONCIERGE_PAUSE", "DEBUG", "SECRET_KEY", "DJANGO_SETTINGS_MODULE"),
    "DATABASE_FILE",
)


def use_settings_of_example(settings: Any) -> None:
    """Set what the example has set, but for the backend."""
    for name in COPIED:
        setattr(settings, name, getattr(example, name))


def environment(**env: str) -> dict[str, str]:
    """Return ours without what would configure the example, and with `env`."""
    return {name: value for name, value in os.environ.items() if name not in OURS} | env


def answers(url: str) -> bool:
    """Tell whether a server answers there."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


class ExampleSite:
    """A server that can be stopped and started again."""

    command: tuple[str, ...] = ("manage.py", "runserver", "--noreload")

    def __init__(self, log: Path, **env: str) -> None:
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self.environment = environment(**env)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        command = [*self.command, f"127.0.0.1:{self.port}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: answers(self.url))

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None

    def restart(self, **env: str) -> None:
        """Stop it, and start it with other settings."""
        self.stop()
        self.environment |= env
        self.start()


class DatabaseSite(ExampleSite):
    """One that `make demo-database` starts, with its file beside its log."""

    command = ("-m", "example_project.with_database")

    def __init__(self, log: Path, **env: str) -> None:
        super().__init__(log, DATABASE_FILE=str(log.parent / "demo.sqlite3"), **env)

    def told(self, what: str) -> str:
        """Return what it has said when it was started for the last time: "password", say."""
        told: list[str] = re.findall(rf"^ *{what}: +(\S+)$", self.log.read_text(), re.MULTILINE)
        return told[-1]
