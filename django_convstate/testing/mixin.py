"""An empty store for each test of a `unittest.TestCase`, Django's or another."""

import unittest
from typing import TYPE_CHECKING, Any

from .isolation import empty_store

if TYPE_CHECKING:
    from unittest import TestCase as _Base
else:
    _Base = object


class ConversationTestMixin(_Base):
    """Runs each test, its `setUp` and `tearDown` included, with an empty store:

    class ChatTest(ConversationTestMixin, TestCase): ...
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse an order of the bases in which this class would do nothing."""
        super().__init_subclass__(**kwargs)
        if issubclass(cls, unittest.TestCase):
            order = cls.__mro__
            if order.index(ConversationTestMixin) > order.index(unittest.TestCase):
                raise TypeError(f"{cls.__name__}: write ConversationTestMixin before TestCase.")

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """See `unittest.TestCase.run`."""
        with empty_store():
            return super().run(result)

    def debug(self) -> None:
        """See `unittest.TestCase.debug`."""
        with empty_store():
            super().debug()
