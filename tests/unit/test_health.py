"""No check can hide or delay another."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from common.clock import now_ms
from common.entry import Failed, Report
from common.errors import DbbError, Failure, Scope
from common.files import Fence
from common.health import (
    Check,
    Result,
    Subject,
    Verdict,
    as_json,
    common_checks,
    directory,
    examine,
    exit_code,
    fail,
    graded_room,
    ok,
    warn,
    worst,
)
from common.ledger.ledger import Ledger
from common.ledger.lock import ManagerLock
from common.ledger.rows import Found, ManagerRow
from common.room import Room
from common.wording import duration
from handoff.lifecycle import LIFECYCLE, SEND
from tests.apart import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, apart, give_up


def _raises(error: Exception) -> Iterator[Result]:
    yield ok("before", "was fine")
    raise error


def _hangs(until: Event) -> Iterator[Result]:
    yield ok("before", "was fine")
    until.wait()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DbbError("it broke", "mend it"), fail("odd", "it broke", "mend it")),
        (
            OSError(13, "Permission denied"),
            fail(
                "odd",
                "[Errno 13] Permission denied",
                "see that this user may look there, and the disk is well",
            ),
        ),
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
    over = Event()
    checks = [
        Check("slow", lambda: _hangs(over), limit=0.2),
        Check("good", lambda: [ok("good", "fine")]),
    ]
    results = list(examine(checks))
    over.set()
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


# What is common to all managers


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    (tmp_path / "buffer").mkdir()
    return Subject(
        program="hdfmgr",
        config=Path("/etc/dbb/summit.yaml"),
        notes=(),
        lifecycle=LIFECYCLE,
        ledger=tmp_path / "ledger.db",
        buffer=os.fsencode(tmp_path / "buffer"),
        exclude=(),
        disks={},
        min_free=0,
        log=None,
    )


def _look(subject: Subject) -> dict[str, Result]:
    return {result.name: result for result in examine(common_checks(subject))}


def _enter(subject: Subject, *, age: float, beat: float | None = 0.0, failed: bool = False) -> None:
    """A file that was found so many seconds ago, and a heartbeat as old as that."""
    now = now_ms()
    with Ledger.open(subject.ledger, LIFECYCLE) as ledger:
        ledger.record([Found(b"a.fits", Fence(1, 2, 3, 4))], now_ms=now - round(age * 1000))
        if failed:
            batch = ledger.claim(SEND, limit=1, max_bytes=9, worker=0, now_ms=now)
            assert batch is not None
            failure = Failure(Scope.FILE, "permission denied", "may not be read")
            outcome = Failed(batch.entries[0].id, failure)
            ledger.finish(batch, Report((outcome,)), backoff=lambda _: 60.0, now_ms=now)
        if beat is not None:
            ledger.beat(ManagerRow(1, "here", "0.1.0", now - 9_000_000, now - round(beat * 1000)))


def test_before_there_is_a_ledger_all_may_be_well(subject: Subject) -> None:
    told = _look(replace(subject, notes=("database.echo: is ignored",)))
    assert {name: result.verdict for name, result in told.items()} == {
        "configuration": Verdict.OK,
        "ledger": Verdict.OK,
        "manager": Verdict.OK,
        "clock": Verdict.OK,
        "odd files": Verdict.OK,
    }


def test_a_manager_that_was_never_started_while_files_wait_is_a_warning(subject: Subject) -> None:
    Path(os.fsdecode(subject.buffer), "a.fits").touch()
    told = _look(subject)["manager"]
    assert (told.verdict, told.hint) == (Verdict.WARN, "hdfmgr start /etc/dbb/summit.yaml")


def test_a_corrupt_ledger_and_a_missing_buffer_are_told_once(subject: Subject) -> None:
    subject.ledger.write_bytes(b"not a database, by any means" * 100)
    os.rmdir(subject.buffer)
    results = list(examine(common_checks(subject)))
    assert [result.name for result in results if result.verdict is not Verdict.OK] == ["ledger"]
    assert {result.name for result in results} == {"configuration", "ledger", "manager", "clock"}


@pytest.mark.parametrize(
    ("age", "verdict"), [(60, Verdict.OK), (2 * 3_600, Verdict.WARN), (2 * 86_400, Verdict.FAIL)]
)
def test_a_file_that_waits_long_is_told(subject: Subject, age: float, verdict: Verdict) -> None:
    _enter(subject, age=age)
    told = _look(subject)["oldest waiting"]
    assert told.verdict is verdict
    assert told.detail == f"a.fits has waited for {duration(age)}, and is found"
    assert ("history" in told.hint) is (verdict is not Verdict.OK)


@pytest.mark.parametrize(("age", "verdict"), [(60, Verdict.OK), (1_000, Verdict.FAIL)])
def test_a_running_manager_must_get_files_through(subject: Subject, age: float, verdict: Verdict) -> None:
    _enter(subject, age=age)
    with ManagerLock(subject.ledger):
        assert _look(subject)["progress"].verdict is verdict


def test_failures_are_a_warning(subject: Subject) -> None:
    _enter(subject, age=60, failed=True)
    assert _look(subject)["failures"] == warn(
        "failures", "1 failed", "hdfmgr status /etc/dbb/summit.yaml --failed"
    )


def test_a_clock_that_was_set_back_is_told(subject: Subject) -> None:
    _enter(subject, age=0, beat=-3_600)
    told = _look(subject)["clock"]
    assert told.verdict is Verdict.WARN
    # A slow machine takes a second or two from it.
    assert re.search(r"(1 h|59 min \d+ s) in the future", told.detail)


def test_of_many_odd_files_a_few_are_named_and_all_counted(subject: Subject) -> None:
    for number in range(12):
        os.mkfifo(os.path.join(subject.buffer, b"pipe%02d" % number))
    told = _look(subject)["odd files"]
    assert told.verdict is Verdict.WARN
    assert told.detail.count("(fifo)") == 5
    assert told.detail.endswith(", and 7 more")


def test_a_directory_that_hides_its_files_is_told_with_what_to_do(subject: Subject) -> None:
    os.mkdir(os.path.join(subject.buffer, b"closed"), 0o000)
    told = apart(_look_without_power, subject)
    assert told.detail == "left alone in the buffer: closed (Permission denied)"
    assert told.hint.startswith("let the manager's user read and enter the directories")


def _look_without_power(subject: Subject) -> Result:
    give_up(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)
    return _look(subject)["odd files"]


def test_a_ledger_of_another_kind_fails_and_hides_nothing(subject: Subject) -> None:
    with Ledger.open(subject.ledger, replace(LIFECYCLE, manager="endpoint")):
        pass
    told = _look(subject)
    assert told["ledger"].verdict is Verdict.FAIL
    assert told["configuration"].verdict is Verdict.OK
    assert told["odd files"].verdict is Verdict.OK


@pytest.mark.parametrize(
    ("room", "min_free", "verdicts"),
    [
        (Room(10**10, 10**12, None, None), 10**9, [Verdict.OK]),
        (Room(15 * 10**8, 10**12, None, None), 10**9, [Verdict.WARN]),
        (Room(10**8, 10**12, None, None), 10**9, [Verdict.FAIL]),
        (Room(10**8, 10**12, None, None), 0, [Verdict.OK]),
        (Room(10**10, 10**12, 30, 1_000), 0, [Verdict.OK, Verdict.WARN]),
        (Room(10**10, 10**12, 3, 1_000), 0, [Verdict.OK, Verdict.FAIL]),
    ],
)
def test_scarce_room_is_told_in_bytes_and_inodes(room: Room, min_free: int, verdicts: list[Verdict]) -> None:
    assert [result.verdict for result in graded_room("space", room, min_free)] == verdicts


def test_a_directory_is_looked_at_and_not_touched(tmp_path: Path) -> None:
    before = tmp_path.stat().st_mtime_ns
    assert [result.verdict for result in directory("x", os.fsencode(tmp_path), "")] == [Verdict.OK]
    assert tmp_path.stat().st_mtime_ns == before
    (tmp_path / "file").touch()
    told = list(directory("x", os.fsencode(tmp_path / "file"), "for this"))
    assert told == [fail("x", f"{tmp_path}/file is not a directory", "create it: for this")]
