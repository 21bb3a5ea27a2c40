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
    named = re.search(r"<!-- (\S+)::(\S+) -->", promise)
    assert named, "name its test in a comment"
    path, name = named.groups()
    tree = ast.parse((ROOT / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def test_there_are_promises() -> None:
    assert all(len(bullets(heading)) > 5 for heading in PROMISES)
