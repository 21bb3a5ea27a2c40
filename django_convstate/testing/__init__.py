"""The contract that every backend keeps, as tests that a backend's author can run.

    class TestMyBackend(BackendContract):
        def make_backend(self, **options):
            return MyBackend(**options)

Pytest collects it as it is; for unittest put `unittest.TestCase` beside it. Each test runs twice,
once with the methods and once with their asyncio twins.
"""

from .contract import BackendContract

__all__ = ["BackendContract"]
