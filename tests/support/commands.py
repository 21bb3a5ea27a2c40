"""Commands as an operator calls them: here, or in a process of their own, in a terminal or not."""

import fcntl
import io
import json
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management import call_command

from django_convstate import Conversation, clock, conversations
from tests.support.servers import wait_until

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds


def make(
    owner: str | None = None, ttl: float | None = None, text: str = "hi", **state: Any
) -> Conversation:
    """Save a conversation with one message."""
    conversation = conversations.create(owner=owner, ttl=ttl)
    conversation.update({"city": "Jaipur"} | state)
    conversation.messages.append("user", text)
    conversation.save()
    return conversation


def pass_by(seconds: float) -> None:
    """Let time pass for what is stored."""
    clock.set_ahead(clock.ahead + seconds)
    conversations.backend.age(seconds)


def run(*args: str) -> str:
    """Call a command and return what it prints, in one line and without frames."""
    out = io.StringIO()
    call_command(*args, stdout=out)
    return " ".join(re.sub(r"[─-╿]", " ", out.getvalue()).split())


def run_json(*args: str) -> Any:
    """Call a command with --json and return what it prints."""
    out = io.StringIO()
    call_command(*args, "--json", stdout=out)
    return json.loads(out.getvalue())


def environment(**settings: Any) -> dict[str, str]:
    """Return the environment of a command with these settings beside those of the tests."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {
        **{name: value for name, value in os.environ.items() if name != "COLUMNS"},
        "DJANGO_SETTINGS_MODULE": "tests.support.command_settings",
        "CONVSTATE_COMMAND_SETTINGS": json.dumps(settings),
        "PYTHONPATH": paths,
        "TERM": "xterm",
        "NO_COLOR": "1",
    }


def spawn(*args: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "django", *args],
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class InTerminal:
    """A command in a terminal of 80 columns."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process = process
        self._terminal = terminal
        self.output = ""

    def read_until(self, condition: Callable[[str], object]) -> None:
        """Read what is printed until that is as expected, or it ends."""

        def is_so() -> bool:
            try:
                read = os.read(self._terminal, 65536)
            except OSError:  # how Linux says that there is no one at the other end
                return True
            self.output += read.decode(errors="replace")
            return not read or bool(condition(self.output))

        wait_until(is_so, PATIENCE)

    def end(self) -> int:
        """Read the rest, and return the exit code."""
        self.read_until(lambda output: False)
        return self.process.wait(PATIENCE)

    @property
    def lines(self) -> list[str]:
        """What is printed: see `lines_of`."""
        return lines_of(self.output)


def lines_of(output: str) -> list[str]:
    """Return the lines of what is printed, without control sequences."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    return [line.rstrip() for line in re.split(r"[\r\n]+", text)]


@contextmanager
def in_terminal(*args: str, **settings: Any) -> Iterator[InTerminal]:
    """Run a command in a process and a terminal of its own."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "django", *args],
        env=environment(**settings),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield InTerminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
