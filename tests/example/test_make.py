"""`make demo` on a new machine says what it does while it installs."""

import os
import subprocess
from pathlib import Path

from tests.support.example_site import ROOT


def test_make_says_what_it_installs_before_it_does(tmp_path: Path) -> None:
    log = tmp_path / "log"
    python = tmp_path / "python"
    # Notes every command that make runs with Python, and does nothing.
    python.write_text(f'#!/bin/sh\necho "runs $*" >> {log}\n')
    python.chmod(0o755)
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    python.rename(venv / "bin" / "python")  # as if it were there
    said = make(venv, python, "demo")
    assert f"Installing what demo needs into {venv}." in said
    assert said.index("Installing") < said.index("The concierge is at http://127.0.0.1:8000")
    first, second = log.read_text().splitlines()
    assert first.endswith("--editable . --group demo")
    assert "--quiet" not in first
    assert "runserver" in second
    assert "Installing" not in make(venv, python, "demo")  # it is done once


def test_make_makes_its_environment_and_says_so(tmp_path: Path) -> None:
    said = make(tmp_path / "venv", Path("python3"), "--dry-run", "demo")
    assert said.index("Making a virtual environment") < said.index("Installing what demo needs")


def test_make_serves_the_example_with_a_database(tmp_path: Path) -> None:
    said = make(tmp_path / "venv", Path("python3"), "--dry-run", "demo-database")
    assert said.splitlines()[-1].endswith("-m example_project.with_database 127.0.0.1:8000")


def make(venv: Path, python: Path, *args: str) -> str:
    names = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", f"VENV={venv}", f"PYTHON={python}", "ADDRESS=127.0.0.1:8000", *args],
        cwd=ROOT,
        env=names,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout
