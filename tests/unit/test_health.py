"""No check can hide or delay another."""

import time
from collections.abc import Iterator

import pytest

from common.errors import DbbError
from common.health import Check, Result, Verdict, as_json, examine, exit_code, fail, ok, warn, worst


def _raises(error: Exception) -> Iterator[Result]:
    yield ok("before", "was fine")
    raise error


def _hangs() -> Iterator[Result]:
    yield ok("before", "was fine")
    time.sleep(30)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DbbError("it broke", "mend it"), fail("odd", "it broke", "mend it")),
        (OSError(13, "Permission denied"), fail("odd", "[Errno 13] Permission denied")),
        (
            ValueError("x"),
            fail(
                "odd", "the check itself failed: ValueError('x')", "this is a fault of the program: report it"
            ),
        ),
    ],
)
def test_a_check_that_raises_is_told_and_hides_nothing(error: Exception, told: Result) -> None:
    checks = [Check("odd", lambda: _raises(error)), Check("good", lambda: [ok("good", "fine")])]
    assert list(examine(checks)) == [ok("before", "was fine"), told, ok("good", "fine")]


def test_a_check_that_hangs_is_left_behind_at_its_limit() -> None:
    checks = [Check("slow", _hangs, limit=0.2), Check("good", lambda: [ok("good", "fine")])]
    started = time.monotonic()
    results = list(examine(checks))
    assert time.monotonic() - started < 2
    assert [(result.name, result.verdict) for result in results] == [
        ("before", Verdict.OK),
        ("slow", Verdict.FAIL),
        ("good", Verdict.OK),
    ]
    assert "no answer within 0.2 s" in results[1].detail


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([], 0),
        ([ok("a", "")], 0),
        ([ok("a", ""), warn("b", "")], 5),
        ([warn("a", ""), fail("b", ""), ok("c", "")], 4),
    ],
)
def test_the_worst_result_decides_the_exit_code(results: list[Result], code: int) -> None:
    assert exit_code(worst(results)) == code


def test_results_in_json_carry_a_version() -> None:
    assert as_json([warn("a", "b", "c")]) == {
        "version": 1,
        "results": [{"name": "a", "status": "WARN", "detail": "b", "hint": "c"}],
    }
