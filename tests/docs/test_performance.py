"""The pages that say what was measured: their tables are what benchmarks print, their links lead
somewhere."""

import re

import pytest

from tests.support.docs import ROOT

PAGES = ["docs/performance.md", "docs/scale.md"]
SOURCES = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere_and_images_are_described(page: str) -> None:
    path = ROOT / page
    for image, text, target in re.findall(r"(!?)\[([^\]]*)\]\((?!http)([^)#]+)", path.read_text()):
        assert text.strip()
        assert (path.parent / target).exists(), target
        assert not image or (path.parent / target).stat().st_size < 60_000


@pytest.mark.parametrize("page", PAGES)
def test_each_table_is_one_that_a_benchmark_prints(page: str) -> None:
    text = (ROOT / page).read_text()
    names = re.findall(r"<!-- table: ([\w-]+) -->", text)
    assert names
    assert len(names) == len(set(names))
    for name in names:
        benchmark, _, kind = name.rpartition("-")
        made = name if kind not in ("goals", "machine") else benchmark
        assert f'"{made}"' in SOURCES, name
    for name, rows in re.findall(r"<!-- table: ([\w-]+) -->\n((?:\|.*\n)*)", text):
        assert rows.count("\n") > 2, f"{name} is empty"


def test_the_plot_is_the_same_whenever_it_is_drawn() -> None:
    image = (ROOT / "docs/images/cost-over-length.svg").read_text()
    assert "<dc:date>" not in image
    assert "django-convstate" in image  # the text is text
