"""What is promised in docs/ names its tests, in comments behind it, or is marked as a limit."""

import ast
import functools
import re

import pytest

from tests.support.docs import ROOT, statements

LIMIT = "**Limit:**"
COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
# The sections of each page in which all is promised; None: the whole page.
PAGES = {
    "docs/security.md": ["Who owns a conversation", "Pages, reports, logs"],
    "docs/outages.md": None,
}


def promises(page: str) -> list[str]:
    text, wanted = (ROOT / page).read_text(), PAGES[page]
    sections = [
        section
        for section in re.split(r"^(?=## )", text, flags=re.MULTILINE)
        if wanted is None or section.removeprefix("## ").partition("\n")[0] in wanted
    ]
    found = [statement for section in sections for statement in statements(section)]
    assert len(found) > 10
    return found


def is_backed(promise: str) -> bool:
    """Tell whether all of it stands before a comment, or behind the mark of a limit."""
    rest = COMMENT.split(promise)[-1].strip()
    return not rest or rest.startswith(LIMIT)


@functools.cache
def functions_in(path: str) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, functions)}


ALL = [pytest.param(promise, id=promise[:40]) for page in PAGES for promise in promises(page)]


@pytest.mark.parametrize("promise", ALL)
def test_each_promise_has_a_test_or_is_a_limit(promise: str) -> None:
    assert is_backed(promise), f"name the tests in a comment behind it, or write {LIMIT}"


@pytest.mark.parametrize("promise", ALL)
def test_the_tests_are_there(promise: str) -> None:
    for named in " ".join(COMMENT.findall(promise)).split():
        path, _, name = named.partition("::")
        assert name.startswith("test_"), named
        assert name in functions_in(path), named


@pytest.mark.parametrize(
    ("promise", "expected"),
    [
        ("It is so. <!-- tests/a.py::test_a -->", True),
        ("It is so. <!-- tests/a.py::test_a --> And so.", False),
        ("It is so.", False),
        ("**Limit:** it may be so.", True),
        ("It is so. <!-- tests/a.py::test_a --> **Limit:** not for ever.", True),
        ("It is so. **Limit:** not for ever.", False),
    ],
)
def test_what_counts_as_backed(promise: str, expected: bool) -> None:
    assert is_backed(promise) is expected


def test_paragraphs_items_and_rows_are_statements() -> None:
    text = """# Title

First
paragraph.

- one
  of two lines
- two

1. three
   - four

| a | b |
|---|---|
| 1 | 2 |

```python
code  # is shown with the paragraph before it
```

## Heading
Last.
"""
    found = ["First paragraph.", "one of two lines", "two", "three", "four", "| 1 | 2 |", "Last."]
    assert statements(text) == found
