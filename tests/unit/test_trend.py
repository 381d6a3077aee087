"""The trend of free space is told from enough samples, and from those alone."""

import pytest

from common.trend import Trend


def test_a_steady_loss_is_told_exactly() -> None:
    trend = Trend()
    for second in range(0, 300, 5):
        trend.add(second, 1e9 - 2e6 * second)
    assert trend.per_second() == pytest.approx(-2e6)


def test_nothing_is_told_from_less_than_a_minute() -> None:
    trend = Trend()
    for second in range(0, 60, 5):
        trend.add(second, second)
    assert trend.per_second() is None


def test_bursts_do_not_hide_the_slope() -> None:
    trend = Trend()
    for second in range(0, 900, 5):
        trend.add(second, 1e12 - 30e6 * (second // 30) * 30)
    assert trend.per_second() == pytest.approx(-30e6, rel=0.01)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    trend = Trend(window=100, spacing=1)
    for second in range(1_000):
        trend.add(second, abs(second - 500))
    assert trend.seconds <= 100
    assert trend.per_second() == pytest.approx(1)


def test_the_ledger_keeps_whole_numbers_or_nothing() -> None:
    trend = Trend()
    assert trend.row() == {}
    for second in range(0, 121, 5):
        trend.add(second, -1_000.5 * second)
    assert trend.row() == {"free_bytes_per_second": -1_000, "trend_seconds": 120}
