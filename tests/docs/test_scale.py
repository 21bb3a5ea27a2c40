"""docs/scale.md calculates what it says, from its own numbers, and as the benchmark does."""

import re
from dataclasses import asdict
from math import ceil

import pytest

from benchmarks.scale_model import Constants, Inputs, Needs, needs
from tests.support.docs import ROOT, blocks

PAGE = (ROOT / "docs/scale.md").read_text()


def numbers(table: str) -> dict[str, str]:
    """Return what stands in a table behind each name, as it is written."""
    (rows,) = re.findall(rf"<!-- table: {table} -->\n((?:\|.*\n)+)", PAGE)
    return dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d.,]+) \|$", rows, re.MULTILINE))


def values(table: str) -> dict[str, float]:
    return {name: float(text.replace(",", "")) for name, text in numbers(table).items()}


def test_what_is_needed_follows_from_the_inputs_and_the_constants() -> None:
    inputs, constants = values("scale-inputs"), values("scale-constants")
    names = {**inputs, **constants, "ceil": ceil}
    (formula,) = blocks(PAGE, "python")
    exec(formula, names)
    written = numbers("scale-needs")
    assert set(written) == set(Needs.__dataclass_fields__)
    for name, text in written.items():
        digits = len(text.partition(".")[2])
        assert f"{names[name]:,.{digits}f}" == text, name

    calculated = needs(Inputs(**inputs), Constants(**constants))
    assert asdict(calculated) == pytest.approx({name: names[name] for name in written})


def test_what_was_checked_is_the_ratio_of_what_was_predicted_and_measured() -> None:
    (rows,) = re.findall(r"<!-- table: scale-check -->\n((?:\|.*\n)+)", PAGE)
    checked = re.findall(r"\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) x \|", rows)
    assert len(checked) == 2
    for predicted, measured, ratio in checked:
        # Each is rounded by itself.
        assert float(measured) / float(predicted) == pytest.approx(float(ratio), rel=0.02)
