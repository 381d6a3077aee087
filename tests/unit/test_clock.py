"""A clock that somebody sets is noticed."""

from common.clock import SetClock

HOUR = 3600.0


def test_a_clock_that_is_set_jumps_once_by_that_much_either_way() -> None:
    clock = SetClock()
    jumps = [
        clock.jump(wall, monotonic)
        for wall, monotonic in (
            (1_000_000, 50),
            (1_000_001, 51),
            (1_000_002 + 3 * HOUR, 52),
            (1_000_003 + 3 * HOUR, 53),
            (1_000_004 - 5 * HOUR, 54),
            (1_000_064 - 5 * HOUR, 114),
        )
    ]
    assert jumps == [0, 0, 3 * HOUR, 0, -8 * HOUR, 0]


def test_a_clock_that_is_corrected_in_small_steps_never_jumps() -> None:
    clock = SetClock()
    assert not any(clock.jump(1_000_000 + second * 1.5, second) for second in range(100))
