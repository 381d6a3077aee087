"""Durations, sizes and rates are read as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.quantities import duration, duration_text, rate, rate_text, size, size_text


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        (90, 90),
        (0.5, 0.5),
        ("0.5s", 0.5),
        ("250ms", 0.25),
        ("30 s", 30),
        ("5m", 300),
        ("36h", 129_600),
        ("30d", 2_592_000),
        ("1w", 604_800),
        ("1h30m", 5_400),
        ("1h 30m", 5_400),
    ],
)
def test_a_duration_is_seconds_or_has_units(written: object, seconds: float) -> None:
    assert duration(written) == seconds


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("0", 0),
        (1000, 1000),
        ("100B", 100),
        ("1kB", 1000),
        ("1KB", 1000),
        ("100MB", 100_000_000),
        ("100 mb", 100_000_000),
        ("1.5GB", 1_500_000_000),
        ("1KiB", 1024),
        ("1GiB", 2**30),
        ("1gib", 2**30),
        ("2TB", 2 * 10**12),
    ],
)
def test_a_size_is_bytes_or_has_a_unit(written: object, count: int) -> None:
    assert size(written) == count


@pytest.mark.parametrize(
    ("written", "count"), [("200MB/s", 200_000_000), ("1MiB/s", 2**20), ("5000", 5000), (5000, 5000)]
)
def test_a_rate_is_a_size_each_second(written: object, count: int) -> None:
    assert rate(written) == count


@pytest.mark.parametrize(
    "written",
    ["", "soon", "1:30", "-1s", "1e3", "nan", "inf", "5 parsecs", "5M", "s", "1.s", "36501d", [], None],
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"^must "):
        duration(written)


@pytest.mark.parametrize(
    "written", ["", "much", "-1", "1.5", "0.5B", "100M", "100Mb", "1e6", "1 2", {}, None]
)
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"^must be bytes"):
        size(written)


@pytest.mark.parametrize("written", ["", "fast", "200Mbit/s", "200MB/m", "1MB/s/s", None])
def test_what_is_no_rate_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"^must be bytes a second"):
        rate(written)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "0s"),
        (1.0, "1s"),
        (0.5, "0.5s"),
        (90.0, "90s"),
        (120.0, "2m"),
        (129_600.0, "36h"),
        (86_400.0, "1d"),
    ],
)
def test_a_duration_is_shown_in_its_largest_whole_unit(seconds: float, written: str) -> None:
    assert duration_text(seconds) == written


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (0, "0"),
        (1001, "1001B"),
        (10**9, "1GB"),
        (1_500_000, "1.5MB"),
        (2**30, "1GiB"),
        (1_234_500, "1234.5kB"),
    ],
)
def test_a_size_is_shown_exactly(count: int, written: str) -> None:
    assert size_text(count) == written


@given(st.integers(0, 10**9))
def test_a_duration_that_was_shown_is_read_as_the_same(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert duration(duration_text(seconds)) == seconds


@given(st.integers(0, 10**18))
def test_a_size_that_was_shown_is_read_as_the_same(count: int) -> None:
    assert size(size_text(count)) == count
    assert rate(rate_text(count)) == count
