"""The circuit breaker, by a clock that the tests turn."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_convstate.backends.failover.breaker import (
    FAILURE_THRESHOLD,
    FIRST_ANSWER_WAIT,
    LONGEST_PROBE_WAIT,
    RECURRENCE_WINDOW,
    SHORTEST_PROBE_WAIT,
    Breaker,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    """Of a server that has answered."""
    breaker = Breaker(clock)
    breaker.succeeded(breaker.era)
    return breaker


def open_it(breaker: Breaker) -> None:
    assert breaker.failed(breaker.era, "away", transient=False)


class TestOpens:
    def test_it_opens_after_so_many_failures_in_a_row(self, breaker: Breaker) -> None:
        assert FAILURE_THRESHOLD <= 5
        for _ in range(FAILURE_THRESHOLD - 1):
            assert not breaker.failed(breaker.era, "slow")
            assert not breaker.is_open
        assert breaker.failed(breaker.era, "slow")
        assert breaker.is_open
        assert breaker.reason == "slow"

    def test_it_opens_at_once_on_a_failure_that_is_not_transient(self, breaker: Breaker) -> None:
        assert breaker.failed(breaker.era, "refused", transient=False)
        assert breaker.is_open

    def test_it_stays_closed_while_answers_come_between_failures(self, breaker: Breaker) -> None:
        for _ in range(100):
            for _ in range(FAILURE_THRESHOLD - 1):
                breaker.failed(breaker.era, "slow")
            breaker.succeeded(breaker.era)
        assert not breaker.is_open

    def test_only_one_caller_is_told_that_it_opened(self, breaker: Breaker) -> None:
        era = breaker.era
        told = [breaker.failed(era, "away", transient=False) for _ in range(5)]
        assert told == [True, False, False, False, False]


class TestSuspects:
    def test_failures_of_one_conversation_alone_do_not_open_it(self, breaker: Breaker) -> None:
        told = [breaker.failed(breaker.era, "slow", about="large") for _ in range(10)]
        assert told == [False] * (FAILURE_THRESHOLD - 1) + [True] + [False] * 7, "to probe once"
        assert (breaker.is_open, breaker.is_suspect) == (False, True)

    def test_failures_of_several_conversations_open_it(self, breaker: Breaker) -> None:
        for number in range(FAILURE_THRESHOLD):
            breaker.failed(breaker.era, "slow", about=f"c{number % 2}")
        assert (breaker.is_open, breaker.is_suspect) == (True, False)

    def test_one_refused_connection_opens_it(self, breaker: Breaker) -> None:
        assert breaker.failed(breaker.era, "refused", transient=False, about="any")
        assert breaker.is_open

    @pytest.mark.parametrize("answers", [True, False])
    def test_a_probe_decides(self, breaker: Breaker, answers: bool) -> None:
        for _ in range(FAILURE_THRESHOLD):
            breaker.failed(breaker.era, "slow", about="large")
        if answers:
            breaker.close()
        else:
            breaker.probe_failed("slow for all")
        assert (breaker.is_open, breaker.is_suspect) == (not answers, False)


class TestFirstSeconds:
    """All threads and processes of a deployment connect at once."""

    def test_timeouts_before_the_first_answer_open_it_only_after_a_while(
        self, clock: Clock
    ) -> None:
        breaker = Breaker(clock)
        for _ in range(50):
            assert not breaker.failed(breaker.era, "slow")
            clock.now += 0.9 * FIRST_ANSWER_WAIT / 50
        assert not breaker.is_open
        clock.now += 0.2 * FIRST_ANSWER_WAIT
        assert breaker.failed(breaker.era, "slow")
        assert breaker.is_open

    def test_a_refused_connection_opens_it_at_once(self, clock: Clock) -> None:
        breaker = Breaker(clock)
        assert breaker.failed(breaker.era, "refused", transient=False)

    def test_after_the_first_answer_there_is_no_more_time(self, clock: Clock) -> None:
        breaker = Breaker(clock)
        breaker.failed(breaker.era, "slow")
        breaker.succeeded(breaker.era)
        for _ in range(FAILURE_THRESHOLD - 1):
            assert not breaker.failed(breaker.era, "slow")
        assert breaker.failed(breaker.era, "slow")


class TestWhatIsFromBefore:
    """An operation that began before a change of state says nothing about the state after it."""

    def test_a_late_failure_does_not_open_it(self, breaker: Breaker) -> None:
        era = breaker.era
        open_it(breaker)
        breaker.close()
        for _ in range(10):
            assert not breaker.failed(era, "late", transient=False)
        assert not breaker.is_open

    def test_a_late_answer_does_not_reset_the_failures(self, breaker: Breaker) -> None:
        era = breaker.era
        open_it(breaker)
        breaker.close()
        for _ in range(FAILURE_THRESHOLD - 1):
            breaker.failed(breaker.era, "slow")
        breaker.succeeded(era)
        assert breaker.failed(breaker.era, "slow"), "the late answer has interrupted the row"

    def test_an_answer_does_not_close_it_while_it_is_open(self, breaker: Breaker) -> None:
        era = breaker.era
        open_it(breaker)
        breaker.succeeded(era)
        breaker.succeeded(breaker.era)
        assert breaker.is_open

    def test_closing_resets_the_failures(self, breaker: Breaker) -> None:
        open_it(breaker)
        breaker.close()
        for _ in range(FAILURE_THRESHOLD - 1):
            assert not breaker.failed(breaker.era, "slow")


class TestProbes:
    @pytest.mark.parametrize("seed", range(20))
    def test_probes_wait_between_one_second_and_thirty(
        self, breaker: Breaker, clock: Clock, seed: int
    ) -> None:
        random.seed(seed)
        open_it(breaker)
        waits = []
        for _ in range(200):
            waits.append(breaker.next_probe - clock.now)
            clock.now = breaker.next_probe
            breaker.probe_failed("still away")
        assert min(waits) >= SHORTEST_PROBE_WAIT == 1
        assert max(waits) <= LONGEST_PROBE_WAIT == 30
        assert waits[0] <= 2 * SHORTEST_PROBE_WAIT
        assert sum(waits[100:]) / 100 > 10, "a long outage is looked into seldom"

    def test_a_server_away_for_ten_seconds_is_found_within_four(self, clock: Clock) -> None:
        for seed in range(300):
            random.seed(seed)
            breaker = Breaker(clock)
            open_it(breaker)
            back = clock.now + 10
            while clock.now < back:
                clock.now = breaker.next_probe
                breaker.probe_failed("still away")
            assert clock.now - back <= 4

    def test_probes_of_many_processes_are_spread(self, clock: Clock) -> None:
        breakers = [Breaker(clock) for _ in range(64)]
        for breaker in breakers:
            open_it(breaker)
        waits = sorted(breaker.next_probe - clock.now for breaker in breakers)
        assert max(sum(a <= b < a + 0.1 for b in waits) for a in waits) < 64 / 3

    def test_outages_in_quick_succession_make_probes_wait_longer(
        self, breaker: Breaker, clock: Clock
    ) -> None:
        least = []
        for _ in range(4):
            open_it(breaker)
            least.append(breaker.next_probe - clock.now)
            clock.now = breaker.next_probe
            breaker.close()
            clock.now += 1
        assert least[0] <= 2 < 5 <= least[1] <= 10 < 25 <= least[2] <= 30
        assert least[3] == 30

    def test_any_number_of_outages_in_quick_succession_can_be_counted(
        self, breaker: Breaker, clock: Clock
    ) -> None:
        for _ in range(2000):
            open_it(breaker)
            clock.now = breaker.next_probe
            breaker.close()
        open_it(breaker)
        assert breaker.next_probe - clock.now == LONGEST_PROBE_WAIT

    def test_thirty_steady_seconds_reset_the_wait_of_the_probes(
        self, breaker: Breaker, clock: Clock
    ) -> None:
        open_it(breaker)
        breaker.close()
        clock.now += RECURRENCE_WINDOW
        open_it(breaker)
        assert breaker.next_probe - clock.now <= 2

    def test_the_reason_is_that_of_the_last_failed_probe(self, breaker: Breaker) -> None:
        open_it(breaker)
        breaker.probe_failed("something else")
        assert breaker.reason == "something else"


def test_threads_that_fail_at_once_open_the_breaker_once(breaker: Breaker) -> None:
    barrier, era = threading.Barrier(32), breaker.era

    def fail(_: int) -> bool:
        barrier.wait()
        return breaker.failed(era, "away", transient=False)

    with ThreadPoolExecutor(32) as pool:
        opened = list(pool.map(fail, range(32)))
    assert sum(opened) == 1
    assert breaker.era == era + 1
