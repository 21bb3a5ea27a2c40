"""A small project whose tests are run by pytest, with workers, and by Django's runner."""

import os
import shutil
import subprocess
import sys
import tomllib
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches

from django_convstate.testing import ConversationTestMixin
from tests.settings import REDIS_URL
from tests.support.docs import ROOT

PROJECT = ROOT / "tests/testing/project"
BACKENDS = ["locmem", "redis"]
CASES = "chat.cases_unittest"
USE_FIXTURE = ["-o", "usefixtures=empty_conversations"]


PYTEST_INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the project, in which the package counts as installed, with the plugin that
    pyproject.toml names, whatever was installed when the environment was made."""
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [
        line
        for group, names in entries.items()
        for line in (f"[{group}]", *(f"{name} = {path}" for name, path in names.items()))
    ]
    shutil.copytree(PROJECT, tmp_path / "chat")
    info = tmp_path / "django_convstate-9.dist-info"
    info.mkdir()
    (tmp_path / "pytest.ini").write_text(PYTEST_INI)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: django-convstate\nVersion: 9\n")
    (info / "entry_points.txt").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture(params=BACKENDS)
def project(request: Any, installed: Path, valkey: None) -> Iterator[dict[str, str]]:
    """The environment of the project's tests, which leave nothing in the store."""
    redis: Any = caches["redis"]
    client = redis._cache.get_client()
    before = set(client.keys("*test-*"))
    yield environment(
        installed,
        DJANGO_SETTINGS_MODULE="chat.settings",
        PROJECT_BACKEND=request.param,
        PROJECT_REDIS_URL=REDIS_URL,
    )
    assert set(client.keys("*test-*")) == before


def environment(installed: Path, **variables: str) -> dict[str, str]:
    ours = ("PYTEST_", "DJANGO_SETTINGS", "PROJECT_")
    inherited = {n: value for n, value in os.environ.items() if not n.startswith(ours)}
    return inherited | {"PYTHONPATH": f"{installed}{os.pathsep}{ROOT}"} | variables


def run(env: dict[str, str], *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=env["PYTHONPATH"].split(os.pathsep)[0],
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    return output


def pytest_on(env: dict[str, str], *arguments: str, code: int = 0) -> str:
    return run(env, "pytest", "-q", "chat/cases_pytest.py", *arguments, code=code)


@pytest.mark.parametrize("workers", [[], ["-n", "3"]])
def test_pytest(project: dict[str, str], workers: list[str]) -> None:
    assert "16 passed" in pytest_on(project, *USE_FIXTURE, *workers)


def test_without_the_fixture_nothing_is_changed(installed: Path) -> None:
    """That is for the project to ask for: what a fixture of a wider scope has stored is away."""
    settings = {"DJANGO_SETTINGS_MODULE": "chat.settings", "PROJECT_BACKEND": "locmem"}
    env = environment(installed, **settings)
    output = pytest_on(env, "-k", "test_a_function and 0", code=1)
    assert "no attribute 'conversation'" in output


def test_djangos_runner(project: dict[str, str]) -> None:
    output = run(project, "django", "test", CASES, "--shuffle")
    assert "Ran 13 tests" in output
    assert "OK (skipped=1)" in output


def test_djangos_runner_with_workers(project: dict[str, str]) -> None:
    # Python's IsolatedAsyncioTestCase cannot be sent to a worker.
    classes = [f"{CASES}.{name}" for name in ("SimpleTests", "TransactionTests", "ChatTests")]
    output = run(project, "django", "test", "--parallel", "2", *classes)
    assert "Ran 11 tests" in output
    assert "OK (skipped=1)" in output


WITHOUT_DJANGO = """
import sys
def test_something(empty_conversations):
    assert "django_convstate" not in sys.modules
    assert "django.test" not in sys.modules
"""


def test_a_project_without_django_does_not_notice_it(installed: Path) -> None:
    (installed / "test_it.py").write_text(WITHOUT_DJANGO)
    output = run(environment(installed), "pytest", "-p", "no:django", "test_it.py")
    assert "1 passed" in output


def test_it_can_be_switched_off(project: dict[str, str]) -> None:
    output = pytest_on(project, *USE_FIXTURE, "-p", "no:django_convstate", code=1)
    assert "fixture 'empty_conversations' not found" in output


def test_the_plugin_imports_nothing_but_pytest() -> None:
    code = "import sys, pytest; before = set(sys.modules); import _django_convstate_pytest; "
    code += "print(sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['_django_convstate_pytest']"


def test_the_mixin_comes_first() -> None:
    with pytest.raises(TypeError, match="before TestCase"):
        type("Tests", (unittest.TestCase, ConversationTestMixin), {})


def test_a_mixin_is_debugged_in_an_empty_store() -> None:
    seen: list[Any] = []

    class Tests(ConversationTestMixin, unittest.TestCase):
        def test_it(self) -> None:
            from django_convstate.testing.isolation import current_stores

            seen.append(current_stores())

    Tests("test_it").debug()
    assert len(seen) == 1
