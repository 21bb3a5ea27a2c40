from collections.abc import Iterator

import pytest

from django_convstate.testing import empty_store


@pytest.fixture
def emptied(request: pytest.FixtureRequest) -> Iterator[None]:
    if "place" in request.fixturenames:  # which has to be there for as long as this is
        request.getfixturevalue("place")
    with empty_store():
        yield
