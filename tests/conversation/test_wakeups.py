"""Which waiter is woken when a turn ends in this process."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from django_convstate.conversation.wakeups import Waiter, turn_ended


class TestWaking:
    """Who is woken when a turn ends in this process."""

    @contextmanager
    def waiters(self, *positions: int) -> Iterator[tuple[list[str], list[Waiter]]]:
        woken: list[str] = []
        names = "abcdef"
        waiters = [Waiter("id", partial(woken.append, names[n])) for n in range(len(positions))]
        with ExitStack() as stack:
            for waiter, position in zip(waiters, positions, strict=True):
                stack.enter_context(waiter)
                waiter.at_position(position)
            yield woken, waiters

    def test_who_is_first_in_line(self) -> None:
        with self.waiters(3, 1, 2) as (woken, _):
            turn_ended("another id")
            assert woken == []
            turn_ended("id")
            assert woken == ["b"]

    def test_who_came_later_counts_from_later(self) -> None:
        with self.waiters(2) as (woken, _):
            turn_ended("id")
            with Waiter("id", partial(woken.append, "late")) as late:
                late.at_position(2)
                turn_ended("id")
                assert woken == ["a", "a"]

    def test_who_is_woken_in_vain_passes_it_on_to_who_may_be_before(self) -> None:
        with self.waiters(1, 2, 4) as (woken, (first, second, _)):
            turn_ended("id")
            first.at_position(1)
            assert woken == ["a", "b"]
            second.at_position(1)
            assert woken == ["a", "b"], "whoever it is, is elsewhere"

    def test_who_goes_without_a_turn_passes_it_on(self) -> None:
        with self.waiters(2) as (woken, _):
            with pytest.raises(ZeroDivisionError), Waiter("id", list) as first:
                first.at_position(1)
                turn_ended("id")
                assert woken == []
                raise ZeroDivisionError
            assert woken == ["a"]
