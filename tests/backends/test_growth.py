"""What is bounded in bytes is bounded in memory of the process, whatever the values are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.growth import BOUND, SHAPES

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc/self/statm")


@pytest.mark.parametrize(
    ("what", "shape"),
    [
        *((what, shape) for what in ("locmem", "journal") for shape in SHAPES),
        *(("loaded", shape) for shape in SHAPES if shape != "many saves"),
        *((what, "tiny keys") for what in ("saved", "exact")),
        *((what, "tiny conversations") for what in ("saved", "exact")),
        *((what, "many saves") for what in ("saved", "exact")),
    ],
)
def test_a_process_grows_by_no_more_than_the_bound(what: str, shape: str) -> None:
    command = [sys.executable, "-m", "tests.support.growth", what, shape]
    growth = int(
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            cwd=ROOT,
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT)},
            timeout=120,
        ).stdout
    )
    assert growth <= 1.5 * BOUND
    assert growth >= 0.4 * BOUND, "and no value counts for far more than it takes"
