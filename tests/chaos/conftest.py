from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.world import World


@pytest.fixture
def world(
    tmp_path: Path,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    record_property: Any,
) -> Iterator[World]:
    with World(tmp_path, settings, caplog, partial(record_property, "figure")) as world:
        yield world


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, text in report.user_properties:
                if name == "figure":
                    terminalreporter.write_line(f"{report.nodeid.split('::')[1]}: {text}")
