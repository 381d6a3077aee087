"""Quantities, times and paths are told in few characters and never dangerously."""

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import wording
from common.process import run


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (1500, "1.50 kB"),
        (12_345, "12.3 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (4_500_000_000_000, "4.50 TB"),
        (-2_000, "-2.00 kB"),
    ],
)
def test_a_size_has_three_figures_and_a_decimal_unit(number: int, told: str) -> None:
    assert wording.size(number) == told


def test_a_rate_that_is_not_nothing_is_not_told_as_nothing() -> None:
    assert [wording.rate(number) for number in (0, 0.1, 5)] == ["0 B/s", "<1 B/s", "5 B/s"]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s"),
        (0.012, "12 ms"),
        (0.41, "0.4 s"),
        (12.3, "12 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (3_600, "1 h"),
        (7_260, "2 h 1 min"),
        (187_200, "2 d 4 h"),
        (-5, "-5.0 s"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, told: str) -> None:
    assert wording.duration(seconds) == told


@pytest.mark.parametrize(
    ("number", "told"),
    [(0, "0"), (0.001, "<0.01"), (0.25, "0.25"), (12.34, "12.3"), (480, "480"), (9_999.9, "10,000")],
)
def test_a_frequency_has_three_figures(number: float, told: str) -> None:
    assert wording.frequency(number) == told


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (b"2026/a b.fits", "2026/a b.fits"),
        ("Köln/ñ.fits".encode(), "Köln/ñ.fits"),
        (b"new\nline", "new\\nline"),
        (b"back\\slash", "back\\\\slash"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"\x1b[2J", "\\x1b[2J"),
        ("\x85".encode(), "\\xc2\\x85"),
    ],
)
def test_odd_bytes_of_a_path_are_escaped(path: bytes, told: str) -> None:
    assert wording.path(path) == told


@given(st.binary(max_size=60))
def test_no_path_can_draw_on_the_terminal(path: bytes) -> None:
    assert wording.path(path).isprintable()


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_two_paths_are_never_told_alike(one: bytes, other: bytes) -> None:
    assert (wording.path(one) == wording.path(other)) == (one == other)


@given(st.binary(max_size=60))
def test_a_path_is_known_again_by_what_is_told_of_it(path: bytes) -> None:
    assert wording.path_told(os.fsencode(wording.path(path))) == path


@pytest.mark.parametrize(
    ("path", "word"),
    [
        (b"2026/a-b_c.fits", "2026/a-b_c.fits"),
        (b"a b.fits", "'a b.fits'"),
        (b"it's", "$'it\\'s'"),
        (b"new\nline \xff", "$'new\\nline \\xff'"),
        (b"-rf", "./-rf"),
        (b"~root", "'~root'"),
    ],
)
def test_a_path_is_plain_or_quoted_for_a_shell(path: bytes, word: str) -> None:
    assert wording.word(path) == word


def test_a_shell_makes_the_same_bytes_of_a_word() -> None:
    names = [bytes([code]) + b"a b" for code in range(1, 256) if code != ord("/")]
    names += [b"-rf", b"$(id)", b"!x", b"it's \\x41 'q'", "Köln\u2028\U000e0001".encode()]
    script = "printf '%s\\0' " + " ".join(wording.word(name) for name in names)
    told = run(["bash", "-c", script]).stdout.split(b"\0")[:-1]
    assert [os.path.normpath(name) for name in told] == names


def test_of_a_long_path_the_end_is_told() -> None:
    assert wording.tail(b"2026/11/25/raw/image.fits", 12) == "…/image.fits"
    assert wording.tail(b"image.fits", 12) == "image.fits"


def test_a_message_keeps_its_lines_and_loses_its_control_codes() -> None:
    assert wording.text("one\ntwo \x1b[31mred\\n") == "one\ntwo \\x1b[31mred\\n"


def test_a_path_in_json_is_text_or_base64() -> None:
    assert wording.json_path("ñ\n".encode()) == "ñ\n"
    assert wording.json_path(b"\xff") == {"base64": base64.b64encode(b"\xff").decode()}


def test_a_time_in_json_is_utc_with_milliseconds() -> None:
    assert wording.json_moment(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
    assert wording.json_moment(None) is None
