"""When to try again."""

import random

import pytest

from common.errors import Failure, Scope
from common.retry import Backoff, Breaker

DOWN = Failure(Scope.CONNECTION, "connection refused", "connect to host: refused")


@pytest.mark.parametrize(("failures", "nominal"), [(1, 5), (2, 10), (3, 20), (7, 320), (8, 600), (9, 600)])
def test_waits_double_up_to_the_cap_with_jitter_below(failures: int, nominal: float) -> None:
    backoff = Backoff(attempts=10, first=5, factor=2, most=600)
    waits = [backoff.delay(failures, random.Random(seed)) for seed in range(50)]
    assert all(wait is not None and nominal / 2 <= wait <= nominal for wait in waits)
    assert len(set(waits)) > 1


def test_spent_attempts_end_the_waiting() -> None:
    assert Backoff(3, 5, 2, 600).delay(3, random.Random(0)) is None


def test_a_patient_operator_does_not_overflow_the_backoff() -> None:
    assert Backoff(10**6, 5, 10, 600).delay(10**5, random.Random(0)) is not None


def test_a_breaker_opens_once_and_probes_ever_more_rarely() -> None:
    breaker = Breaker(first=1, most=5)
    assert breaker.trip(DOWN, now=100)
    assert not breaker.probe_due(100.9)
    assert breaker.probe_due(101)
    waits = []
    now = 101.0
    for _ in range(4):
        assert not breaker.trip(DOWN, now)
        wait = breaker.seconds_to_probe(now)
        assert wait is not None
        waits.append(wait)
        now += wait
    assert waits == [2, 4, 5, 5]


def test_after_a_good_probe_one_success_closes_it() -> None:
    breaker = Breaker()
    breaker.trip(DOWN, now=0)
    breaker.probed()
    assert (breaker.is_open, breaker.is_half_open, breaker.failure) == (False, True, DOWN)
    assert breaker.close()
    assert not breaker.close()
    assert (breaker.is_open, breaker.is_half_open, breaker.failure) == (False, False, None)


def test_failing_again_half_open_is_no_news_and_keeps_the_longer_wait() -> None:
    breaker = Breaker(first=1, most=5)
    breaker.trip(DOWN, now=0)
    breaker.probed()
    assert not breaker.trip(DOWN, now=10)
    assert breaker.seconds_to_probe(10) == 2


def test_what_fails_together_waits_no_longer_than_one_alone() -> None:
    breaker = Breaker(first=1, most=5)
    assert breaker.trip(DOWN, now=0)
    assert [breaker.trip(DOWN, now=0.1) for _ in range(5)] == [False] * 5
    assert (breaker.trips, breaker.seconds_to_probe(0.1)) == (1, 0.9)
