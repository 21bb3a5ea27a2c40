"""The pytest plugin of django-convstate: see docs/testing.md.

No module of the package, because pytest imports this in each run of each project, and the package
is imported by tests that ask for it.
"""

import os
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def empty_conversations() -> Iterator[None]:
    """Have every conversation store be empty for this test, and give test clients `conversation`.
    Without Django settings it does nothing."""
    if not _has_settings():
        yield
        return
    from django_convstate.testing import empty_store

    with empty_store():
        yield


def _has_settings() -> bool:
    conf = sys.modules.get("django.conf")
    return "DJANGO_SETTINGS_MODULE" in os.environ or bool(conf and conf.settings.configured)
