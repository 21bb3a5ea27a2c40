"""docs/security.md: each promise names a test that is there."""

import ast
import re

import pytest

from tests.support.docs import ROOT

TEXT = (ROOT / "docs/security.md").read_text()
PROMISES = ["Whose a conversation is", "Pages, reports, logs"]


def bullets(heading: str) -> list[str]:
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^- (.*?)(?=^- |\Z)", section, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("promise", [each for heading in PROMISES for each in bullets(heading)])
def test_each_promise_has_a_test(promise: str) -> None:
    comment = re.search(r"<!-- (.+?) -->", promise, re.DOTALL)
    assert comment, "name its tests in a comment"
    for test in comment[1].split():
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text())
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, functions)}, test


def test_there_are_promises() -> None:
    assert all(len(bullets(heading)) > 5 for heading in PROMISES)
