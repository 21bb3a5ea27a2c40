"""The packed log of commits: what a damaged one is taken for."""

import math
import struct

import pytest

from django_convstate.backends.toolkit.commit_log import CommitLog


@pytest.mark.parametrize("floor", [math.inf, math.nan, -1.0, 1e300])
def test_a_floor_that_is_no_number_of_a_commit_is_damage(floor: float) -> None:
    packed = struct.pack("<8sIdHII", b"a writer", 1, floor, 1, 0, 1)
    with pytest.raises(ValueError, match="a floor"):
        CommitLog.parse(packed)


@pytest.mark.parametrize("size", range(1, 30))
def test_a_log_that_is_cut_off_is_damage(size: int) -> None:
    packed = struct.pack("<8sIdHII", b"a writer", 1, 5.0, 1, 0, 1)
    with pytest.raises(ValueError, match="commits"):
        CommitLog.parse(packed[:size])
