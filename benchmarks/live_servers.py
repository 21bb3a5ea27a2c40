"""The real servers of bench_live.py, of one process each."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS_TO_START = 60


@contextmanager
def serving(command: str, keeps: str = "conversation") -> Iterator[tuple[int, int]]:
    """Run a server, and yield its port and the process's id.

    Args:
        command: the arguments of python -m, with {port}.
        keeps: what the project keeps: "conversation" or "session".
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", *command.format(port=port).split()],
        env={**os.environ, "BENCH_KEEPS": keeps},
    )
    try:
        _wait_for(port, process)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("The server has not begun to listen.")


def allow_many_sockets() -> None:
    """Let this process, and the servers that it starts, have as many files open as they may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
