"""What the tests of the examples share."""

from tests.support.chromium import browser

__all__ = ["browser"]
