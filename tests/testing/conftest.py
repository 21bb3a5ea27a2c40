from collections.abc import Iterator

import pytest

from django_convstate.testing import empty_store


@pytest.fixture
def emptied() -> Iterator[None]:
    with empty_store():
        yield
