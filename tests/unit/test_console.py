"""What is drawn is complete, fits, and holds nothing that could steer a terminal."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from common import story
from common.console import Screen
from common.control import Stopped
from common.errors import DbbError
from common.files import Checksum, Fence
from common.health import Result, Verdict
from common.ledger.rows import Ride, Transition, VersionStory
from common.retrying import Miss, Retried
from common.status import (
    Delivered,
    Disk,
    EndpointState,
    Forecast,
    Load,
    ManagerState,
    StateCount,
    Status,
    Trouble,
)
from handoff.lifecycle import LIFECYCLE

NOW = 1_795_000_000_000
STATUS = Status(
    program="hdfmgr",
    name="summit",
    at_ms=NOW,
    manager=ManagerState(running=True, pid=4711, since_ms=NOW - 280_000_000, heartbeat_age=0.4),
    states=(
        StateCount("found", 1_234, 25_300_000_000),
        StateCount("sending", 12, 120_000_000, "working"),
        StateCount("held", 1_234_567, 45_600_000_000_000, "done"),
        StateCount("failed", 3, 3_000, "trouble"),
        StateCount("vanished", 0, 0, "aside"),
    ),
    oldest_waiting=742.0,
    goal="delivered",
    rates=(Delivered("1m", 60, 720, 1_200_000_000), Delivered("5m", 300, 0, 0)),
    loads=(
        Load(0, "sending", "send", b"raw/AT_O_20261125_000123.fits", 500, 120_000_000, 60_000_000, 6.0),
        Load(1, "sending", "hash", b"odd \x1b[31m\xff\nname.fits", 1, 8_000_000_000, 0, 0.4),
    ),
    troubles=(
        Trouble("failed", "permission denied", 2, b"raw/secret.fits", "it may not be read", NOW + 12_000),
        Trouble("failed", "digest differs", 1, b"raw/other.fits", "\x1b]0;evil\x07", None),
    ),
    endpoint=EndpointState(True, NOW - 7_200_000, "", "archive.example.edu"),
    disks=(Disk("buffer", 120_000_000_000, 1_000_000_000_000), Disk("endpoint_staging", 5_000, None)),
    forecast=Forecast(-9_000_000, 900, 13_333.0),
)  # fmt: skip


def _picture(capsys: pytest.CaptureFixture[str], status: Status, width: int) -> str:
    Screen("hdfmgr", width).status(status)
    return capsys.readouterr().out


def _lines_with(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if all(word in line for word in words)]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_status_fits_and_tells_all(capsys: pytest.CaptureFixture[str], width: int) -> None:
    picture = _picture(capsys, STATUS, width)
    assert max(map(len, picture.splitlines())) <= width
    for words in (
        ("summit", "● running for 3 d 5 h", "pid 4711"),
        ("archive.example.edu", "● reachable for 2 h"),
        ("the oldest file, on its way or failed, for 12 min 22 s",),
        ("found", "1,234", "25.3 GB"),
        ("held", "1,234,567", "45.6 TB"),
        ("vanished", "0", "0 B"),
        ("1 min", "720", "12.0", "20.0 MB/s"),
        ("buffer", "120 GB", "12%", "~ 3 h 42 min"),
        ("0", "sending (send)" if width >= 140 else "send", "500", "120 MB", "50%", "10.0 MB/s", "6.0 s"),
        ("2", "failed", "permission denied", "in 12 s"),
        ("1", "failed", "digest differs", "on `retry`"),
    ):
        assert _lines_with(picture, *words), words


def test_no_name_and_no_message_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    picture = _picture(capsys, STATUS, 200)
    assert "\x1b" not in picture
    assert "\x07" not in picture
    assert "odd \\x1b[31m\\xff\\nname.fits" in picture
    assert "\\x1b]0;evil\\x07" in picture


def test_markup_in_a_name_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    load = replace(STATUS.loads[0], path=b"[bold red]x[/] :smile:.fits")
    assert "[bold red]x[/] :smile:.fits" in _picture(capsys, replace(STATUS, loads=(load,)), 200)


@pytest.mark.parametrize(
    ("manager", "told"),
    [
        (ManagerState(False, None, None, None), "● never started"),
        (ManagerState(False, None, NOW - 60_000, 60.0), "● not running for 1 min (since "),
        (ManagerState(True, 7, NOW - 60_000, 42.0), "● running for 1 min"),
        (ManagerState(True, 7, NOW - 60_000, 42.0), "silent for 42 s"),
        (ManagerState(True, 7, NOW - 60_000, 0.1, paused="the buffer is full"), "the buffer is full"),
        (
            ManagerState(False, None, NOW - 60_000, 60.0, was_paused="the disk is full"),
            "paused    before it ended: the disk is full",
        ),
        (ManagerState(True, 7, NOW - 60_000, 0.1, renewed_ms=NOW), ", reloaded 20"),
    ],
)
def test_what_there_is_to_know_of_the_manager_is_told(
    capsys: pytest.CaptureFixture[str], manager: ManagerState, told: str
) -> None:
    assert told in _picture(capsys, replace(STATUS, manager=manager), 100)


def test_of_a_manager_that_was_never_started_the_ledger_is_named_that_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = replace(STATUS, manager=ManagerState(False, None, None, None), ledger="/state/dbb/summit.db")
    assert "● never started with the ledger /state/dbb/summit.db" in _picture(capsys, status, 100)


def test_an_unreachable_endpoint_is_told_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    endpoint = EndpointState(False, NOW - 90_000, "Connection refused", "archive")
    picture = _picture(capsys, replace(STATUS, endpoint=endpoint), 100)
    assert "● unreachable for 1 min 30 s" in picture
    assert "Connection refused" in picture


def test_the_reason_of_a_pause_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    endpoint = EndpointState(False, NOW - 90_000, "connection refused: port 22", "archive")
    manager = replace(STATUS.manager, paused="connection refused: port 22; start sshd")
    picture = _picture(capsys, replace(STATUS, endpoint=endpoint, manager=manager), 100)
    assert picture.count("port 22") == 1


@pytest.mark.parametrize(("width", "told"), [(100, "starting"), (200, "sending (starting)")])
def test_a_worker_that_has_not_said_what_it_does_is_starting(
    capsys: pytest.CaptureFixture[str], width: int, told: str
) -> None:
    load = replace(STATUS.loads[0], phase="", done=0)
    assert f" {told} " in _picture(capsys, replace(STATUS, loads=(load,)), width)


def test_a_forecast_that_is_not_known_is_told_as_that(capsys: pytest.CaptureFixture[str]) -> None:
    assert _lines_with(_picture(capsys, replace(STATUS, forecast=None), 100), "buffer", "unknown")
    steady = replace(STATUS, forecast=Forecast(0, 900, None))
    assert _lines_with(_picture(capsys, steady, 100), "buffer", "does not fill")


def test_results_are_drawn_with_their_hints_and_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    results = [
        Result("ledger", Verdict.OK, "fine"),
        Result("ssh login", Verdict.FAIL, "refused", "start sshd"),
    ]

    def found() -> Iterator[Result]:
        yield from results

    assert Screen("hdfmgr", 80).results(found()) == results
    assert capsys.readouterr().out.splitlines() == [
        "OK    ledger                   fine",
        "FAIL  ssh login                refused",
        "      → start sshd",
        "1 OK, 0 WARN, 1 FAIL",
    ]


def test_an_error_off_a_terminal_is_a_message_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    Screen("hdfmgr").error(
        DbbError("a.yaml:3: handoff.bufer: unknown key\na.yaml:9: x: y", "did you mean it?")
    )
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "a.yaml:3: handoff.bufer: unknown key\na.yaml:9: x: y\n  hint: did you mean it?\n"
    )
    Screen("hdfmgr").error(DbbError("it broke: at 3: x"))
    assert capsys.readouterr().err == "hdfmgr: it broke: at 3: x\n"


@pytest.mark.parametrize(
    ("stopped", "told"),
    [
        (Stopped("not running"), "hdfmgr is not running\n"),
        (
            Stopped("finished", 7, 0.4),
            "hdfmgr (process 7) finished what was in flight and ended after 0.4 s\n",
        ),
        (
            Stopped("gave up", 7, 61),
            "hdfmgr (process 7) ended after 1 min 1 s; what was in flight is resumed at the next start\n",
        ),
        (
            Stopped("still running", 7, 75),
            "hdfmgr (process 7) has not ended after 1 min 15 s: it hangs; `kill -KILL 7`"
            " ends it, and the next start resumes what was in flight\n",
        ),
    ],
)
def test_the_end_of_a_manager_is_told(
    capsys: pytest.CaptureFixture[str], stopped: Stopped, told: str
) -> None:
    Screen("hdfmgr").stopped(stopped)
    assert capsys.readouterr().out == told


def test_what_retry_could_not_find_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Screen("hdfmgr").retried(Retried(1, (Miss(b"a\xff", ()), Miss(b"b", ("held", "vanished")))))
    assert capsys.readouterr().out == (
        "1 file to try again\n"
        "$'a\\xff': nothing to try again: it is not known to the ledger\n"
        "b: nothing to try again: it is held, vanished\n"
    )


def test_a_live_table_is_drawn_seldom_however_often_it_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    looks = []

    def look() -> Status:
        looks.append(1)
        return STATUS

    with Screen("hdfmgr").live(look) as tick:
        for _ in range(10_000):
            tick()
    # At once, and at the end.
    assert len(looks) == 2
    assert (
        capsys.readouterr().out.splitlines()
        == ["hdfmgr: found 1,234, sending 12, held 1,234,567, failed 3; 20.0 MB/s over 1m"] * 2
    )


def _version(state: str, *, due_at: int | None = None) -> VersionStory:
    return VersionStory(
        id=7,
        path=b"raw/a b.fits",
        fence=Fence(1, 20_000, 1_794_999_000_000_000_000, 0),
        checksum=Checksum("sha256", "ab" * 32),
        state=state,
        step="sending",
        attempts=2,
        claims=2,
        due_at=due_at,
        cause="permission denied",
        reason="cannot open it",
        bulky=False,
        found_at=NOW - 5_000,
        changed_at=NOW,
        transitions=(
            Transition(NOW - 5_000, "", "found", None, ""),
            Transition(NOW - 4_600, "found", "sending", 12, ""),
            Transition(NOW - 1_000, "sending", "failed", 12, "cannot open it"),
        ),
        rides=(
            Ride(
                12, "sending", 1, NOW - 4_600, NOW - 1_000, 3, 36_000_000, {"hash": 0.1, "send": 3.4}, 23, "a"
            ),
        ),
        receipts=(),
    )


def test_a_story_tells_every_transition_and_every_batch(capsys: pytest.CaptureFixture[str]) -> None:
    told = story.tell("hdfmgr", b"raw/a b.fits", (_version("failed"),), LIFECYCLE, NOW)
    Screen("hdfmgr", 120).story(told)
    picture = capsys.readouterr().out
    for words in (
        ("file", "'raw/a b.fits'"),
        ("waits for", "`hdfmgr retry`, after 2 failures: cannot open it"),
        ("hint", "mend the reason, then `hdfmgr retry CONFIG 'raw/a b.fits'`"),
        ("content", "20.0 kB"),
        ("sha256", "ab" * 32),
        ("sending", "0.4 s", "12"),
        ("failed", "3.6 s", "cannot open it"),
        ("12", "sending", "3.6 s", "3", "36.0 MB", "10.0 MB/s", "hash 0.1 s, send 3.4 s"),
        ("exit code 23",),
    ):
        assert _lines_with(picture, *words), words


@pytest.mark.parametrize(
    ("state", "due_at", "told"),
    [
        ("found", None, "its turn to be taken on: cannot open it"),
        ("sending", None, "the end of its batch, that is sending now"),
        ("delivered", None, "its turn to be taken on: cannot open it"),
        ("held", None, "nothing: it is through"),
        ("failed", NOW + 12_000, "its next try in 12 s, after 2 failures: cannot open it"),
        ("failed", None, "`hdfmgr retry`, after 2 failures: cannot open it"),
        ("conflict", None, "`hdfmgr retry`: cannot open it"),
        ("vanished", None, "its content to come back: cannot open it"),
    ],
)
def test_a_story_says_what_the_file_waits_for(state: str, due_at: int | None, told: str) -> None:
    assert story.waits_for(_version(state, due_at=due_at), "hdfmgr", LIFECYCLE, NOW) == told


@pytest.mark.parametrize(
    ("state", "due_at", "told"),
    [
        ("found", None, "its turn to be taken on: it is paused"),
        ("failed", NOW + 12_000, "its next try in 12 s, after 2 failures: cannot open it; but it is paused"),
        ("conflict", None, "`hdfmgr retry`: cannot open it"),
    ],
)
def test_a_story_says_what_keeps_all_files_waiting(state: str, due_at: int | None, told: str) -> None:
    version = _version(state, due_at=due_at)
    assert story.waits_for(version, "hdfmgr", LIFECYCLE, NOW, "it is paused") == told


def test_a_file_that_a_killed_manager_had_in_flight_waits_for_the_next_one() -> None:
    told = story.waits_for(_version("sending"), "hdfmgr", LIFECYCLE, NOW, "it is killed", is_running=False)
    assert told == "its batch to be resumed: it is killed"


def test_a_story_in_json_names_odd_paths_exactly() -> None:
    told = story.as_json(story.tell("hdfmgr", b"\xff", (_version("held"),), LIFECYCLE, NOW))
    assert json.loads(json.dumps(told))["path"] == {"base64": "/w=="}
    assert told["version"] == 1
