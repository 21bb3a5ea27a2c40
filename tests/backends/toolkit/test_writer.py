"""Forked processes are writers of their own, also where Python is not told of the fork: uWSGI forks
its workers like that, after the application was loaded."""

import subprocess
import sys
import textwrap

import pytest

CHILDREN = 3
SCRIPT = """
import ctypes, gc, os, random

from django_convstate.backends.toolkit.writer import ThisProcess
from django_convstate.ids import next_message_id

libc = ctypes.PyDLL(None)
fork = {"Python's": os.fork, "another": libc.fork}[FORK]
kept = ThisProcess.writer.begin("a")  # of the parent
for _ in range(CHILDREN):
    if fork() == 0:
        commit = ThisProcess.writer.begin("a")
        kept = None
        gc.collect()
        random.seed(1)  # as a project may do
        id = next_message_id(0, b"") % 2**32
        following = ThisProcess.writer.begin("a")
        assert (commit.number, following.number, following.floor) == (1, 2, 1), "the parent's count"
        os.write(1, b"%s %d\\n" % (commit.writer.hex().encode(), id))
        os._exit(0)
    os.wait()
os.write(1, b"%s 0\\n" % ThisProcess.writer.begin("a").writer.hex().encode())
assert kept.number == 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the name of the C library is that of Linux")
@pytest.mark.parametrize("fork", ["Python's", "another"])
def test_each_process_is_another_writer_and_makes_other_ids(fork: str) -> None:
    script = f"FORK, CHILDREN = {fork!r}, {CHILDREN}\n" + textwrap.dedent(SCRIPT)
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    writers, ids = zip(*map(str.split, result.stdout.splitlines()), strict=True)
    assert len(set(writers)) == len(set(ids)) == CHILDREN + 1
