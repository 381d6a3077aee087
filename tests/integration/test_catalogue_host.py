"""A catalogue may do what it likes: it costs the file at fault, and no other."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from endpoint.catalogues.contract import CatalogueError, Result, Verdict
from endpoint.catalogues.host import Host
from tests.catalogues import imagined

NASTY = "tests.catalogues:NastyCatalogue"
GOOD = Verdict.INGESTED


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Where the catalogue notes what it has ingested."""
    return tmp_path / "kept"


@pytest.fixture
def host(kept: Path) -> Iterator[Host]:
    with Host(NASTY, {"path": str(kept)}, timeout=30) as host:
        yield host


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """What the host logs."""
    records: list[logging.LogRecord] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, keeper = logging.getLogger("endpoint.catalogues"), Keeper()
    logger.addHandler(keeper)
    logger.setLevel(logging.DEBUG)
    yield records
    logger.removeHandler(keeper)
    logger.setLevel(logging.NOTSET)


def verdicts(results: Iterator[Result]) -> dict[int, Verdict]:
    """By id; a second result for a file would be an error of the host."""
    found: dict[int, Verdict] = {}
    for result in results:
        assert result.id not in found
        found[result.id] = result.verdict
    return dict(sorted(found.items()))


def opened(kept: Path) -> list[int]:
    """The processes in which the catalogue was opened."""
    return [int(line) for line in Path(f"{kept}.opened").read_text().split()]


def test_each_request_gets_its_result_from_one_process(host: Host, kept: Path) -> None:
    assert verdicts(host.ingest(imagined("a", "b"))) == {1: GOOD, 2: GOOD}
    assert verdicts(host.ingest(imagined("c"))) == {1: GOOD}
    assert (kept.read_text().split(), len(opened(kept))) == (["a", "b", "c"], 1)


def test_no_requests_start_no_process(host: Host) -> None:
    assert (list(host.ingest([])), host.pid) == ([], None)


@pytest.mark.parametrize(
    ("deed", "verdict", "reason"),
    [
        ("exit", Verdict.CRASHED, "the catalogue's process ended with exit code 0"),
        ("leave", Verdict.CRASHED, "the catalogue's process ended with exit code 3"),
        ("segfault", Verdict.CRASHED, "the catalogue's process was killed by SIGSEGV"),
        ("abort", Verdict.CRASHED, "the catalogue's process was killed by SIGABRT"),
        (
            "last-words",
            Verdict.CRASHED,
            "the catalogue's process ended with exit code 7; its last words: the disk is on fire",
        ),
        ("raise", Verdict.FAILED, "RuntimeError: what nobody had thought of"),
        ("skip", Verdict.NO_ANSWER, "the catalogue said nothing on it"),
        ("nonsense", Verdict.FAILED, "the catalogue's verdict on it was 'splendid', which means nothing"),
        ("pretends", Verdict.FAILED, "not really"),
        ("talks", Verdict.FAILED, ("very " * 400)),
        ("invalid", Verdict.INVALID, "no header"),
    ],
)
@pytest.mark.parametrize("place", [0, 3])
def test_what_goes_wrong_costs_the_file_at_fault(
    host: Host, kept: Path, deed: str, verdict: Verdict, reason: str, place: int
) -> None:
    names = ["a", "b", "c", "d"]
    names.insert(place, f"{deed}.fits")
    results = {result.id: result for result in host.ingest(imagined(*names))}
    bad = results.pop(place + 1)
    assert (bad.verdict, bad.reason) == (verdict, reason)
    assert [result.verdict for result in results.values()] == [GOOD] * 4
    assert sorted(kept.read_text().split()) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("deed", ["print", "fork", "return", "twice", "stranger", "garbage"])
def test_bad_manners_cost_nothing(host: Host, kept: Path, deed: str) -> None:
    names = ["a", f"{deed}.fits", "b"]
    assert verdicts(host.ingest(imagined(*names))) == {1: GOOD, 2: GOOD, 3: GOOD}
    assert (set(kept.read_text().split()), len(opened(kept))) == (set(names), 1)


def test_all_kinds_of_trouble_in_one_batch_leave_the_good_files_ingested(host: Host, kept: Path) -> None:
    good = [f"good{number}" for number in range(6)]
    bad = ["exit", "segfault", "abort", "raise", "skip", "twice", "print", "fork"]
    found = verdicts(host.ingest(imagined(*good[:3], *bad, *good[3:])))
    expected = [GOOD] * 3 + [Verdict.CRASHED] * 3 + [Verdict.FAILED, Verdict.NO_ANSWER] + [GOOD] * 6
    assert list(found.values()) == expected
    assert set(good) <= set(kept.read_text().split())


def test_a_file_that_hangs_is_found_and_the_others_are_ingested(kept: Path) -> None:
    with Host(NASTY, {"path": str(kept)}, timeout=2) as host:
        found = list(host.ingest(imagined("a", "hang", "b")))
    assert {result.id: result.verdict for result in found} == {1: GOOD, 2: Verdict.TIMED_OUT, 3: GOOD}
    assert next(result.reason for result in found if result.id == 2) == "no progress within 2 s"


def test_each_result_is_progress(kept: Path) -> None:
    with Host(NASTY, {"path": str(kept)}, timeout=2.5) as host:
        found = verdicts(host.ingest(imagined(*(f"slow.{number}" for number in range(6)))))
    assert (set(found.values()), len(opened(kept))) == ({GOOD}, 1)


def test_a_result_does_not_wait_for_the_next_file(host: Host) -> None:
    results = host.ingest(imagined("a", "hang"))
    assert next(results).id == 1


@pytest.mark.parametrize("deeds", [["segfault"] * 3, ["raise"] * 3, ["talks"] * 3, ["exit", "raise", "skip"]])
def test_a_catalogue_that_fails_over_every_file_is_to_blame_itself(host: Host, deeds: list[str]) -> None:
    found: list[Result] = []
    with pytest.raises(CatalogueError, match="fails over every file, 3 in a row"):
        found.extend(host.ingest(imagined(*(f"{deed}.{number}" for number, deed in enumerate(deeds)))))
    assert found == []


def test_a_catalogue_that_hangs_is_not_tried_with_a_whole_batch(kept: Path) -> None:
    names = [f"hang.{number}" for number in range(6)]
    with (
        Host(NASTY, {"path": str(kept)}, timeout=0.3) as host,
        pytest.raises(CatalogueError, match=r"fails over every file, 3 in a row: no progress within 0\.3 s"),
    ):
        list(host.ingest(imagined(*names)))


def test_what_the_catalogue_has_failed_over_is_blamed_once_it_is_seen_to_be_well(host: Host) -> None:
    files = imagined("segfault.1", "segfault.2", "segfault.3", "good")
    with pytest.raises(CatalogueError, match="fails over every file"):
        list(host.ingest(files[:3]))
    assert verdicts(host.ingest(files[3:4])) == {4: GOOD}
    assert verdicts(host.ingest(files[:3])) == dict.fromkeys(range(1, 4), Verdict.CRASHED)


def test_a_catalogue_that_fails_again_lifts_the_blame_for_what_it_failed_over_before(host: Host) -> None:
    """It had been well for a moment only, and may have been at fault then, too."""
    first, good, others = (
        imagined("exit.1", "exit.2", "exit.3", "good", "exit.4", "exit.5", "exit.6")[part]
        for part in (slice(3), slice(3, 4), slice(4, 7))
    )
    with pytest.raises(CatalogueError, match="fails over every file"):
        list(host.ingest(first))
    assert verdicts(host.ingest(good)) == {4: GOOD}
    for broken in (others, first):
        with pytest.raises(CatalogueError, match="fails over every file"):
            list(host.ingest(broken))


def test_files_that_were_blamed_by_a_manager_before_are_blamed_again(host: Host) -> None:
    files = imagined("segfault.1", "segfault.2", "segfault.3")
    found = verdicts(host.ingest(files, failed_before=[1, 2, 3]))
    assert found == dict.fromkeys(range(1, 4), Verdict.CRASHED)


def test_files_that_come_one_by_one_are_not_blamed_after_a_few_crashes(host: Host) -> None:
    files = imagined("segfault.1", "segfault.2", "segfault.3", "good", "segfault.4")
    assert [verdicts(host.ingest([file])) for file in files[:2]] == [
        {1: Verdict.CRASHED},
        {2: Verdict.CRASHED},
    ]
    for _ in range(2):
        with pytest.raises(CatalogueError, match="fails over every file, 3 in a row"):
            list(host.ingest(files[2:3]))
    assert verdicts(host.ingest(files[:1], failed_before=[1])) == {1: Verdict.CRASHED}
    assert verdicts(host.ingest(files[2:4])) == {3: Verdict.CRASHED, 4: GOOD}
    assert verdicts(host.ingest(files[4:])) == {5: Verdict.CRASHED}


def test_some_files_that_kill_before_a_good_one_are_to_blame_themselves(host: Host) -> None:
    names = [f"segfault.{number}" for number in range(4)]
    expected = dict.fromkeys(range(1, 5), Verdict.CRASHED) | {5: GOOD}
    assert verdicts(host.ingest(imagined(*names, "good"))) == expected
    for file in imagined(*names):
        assert verdicts(host.ingest([file])) == {file.id: Verdict.CRASHED}


def test_what_dies_of_an_earlier_file_is_tried_again(host: Host) -> None:
    """Once alone in a fresh process: so a file is not blamed for what another one has done."""
    assert verdicts(host.ingest(imagined("a", "once-segfault", "b"))) == {1: GOOD, 2: GOOD, 3: GOOD}
    assert verdicts(host.ingest(imagined("once-abort"))) == {1: GOOD}


def test_many_files_are_halved_to_find_the_one_that_kills(host: Host, kept: Path) -> None:
    names = [f"n{number}" for number in range(300)]
    names[150] = "segfault"
    found = verdicts(host.ingest(imagined(*names)))
    assert [number for number, verdict in found.items() if verdict is not GOOD] == [151]
    assert len(opened(kept)) < 12


def test_a_catalogue_error_leaves_results_before_it_and_blames_nobody(host: Host) -> None:
    found: list[Result] = []
    with pytest.raises(CatalogueError, match="the catalogue is locked") as raised:
        found.extend(host.ingest(imagined("a", "refuse", "b")))
    assert ([result.id for result in found], raised.value.hint, host.pid) == ([1], "unlock it", None)
    assert verdicts(host.ingest(imagined("b"))) == {1: GOOD}


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        ("refuse", "the catalogue is locked"),
        ("raise", "could not be started: RuntimeError: what nobody had thought of"),
        ("last-words", "ended with exit code 7 as it started; its last words: the disk is on fire"),
        ("segfault", "was killed by SIGSEGV as it started"),
        ("hang", "did not start within 1 s"),
    ],
)
def test_a_catalogue_that_does_not_open_is_no_files_fault(kept: Path, deed: str, message: str) -> None:
    config = {"path": str(kept), "open": deed}
    with (
        Host(NASTY, config, timeout=30, start_timeout=1 if deed == "hang" else 60) as host,
        pytest.raises(CatalogueError, match=message),
    ):
        list(host.ingest(imagined("a")))


def test_a_catalogue_that_is_killed_while_it_rests_is_started_again(host: Host, kept: Path) -> None:
    list(host.ingest(imagined("a")))
    assert host.pid is not None
    os.kill(host.pid, signal.SIGKILL)
    assert verdicts(host.ingest(imagined("b"))) == {1: GOOD}
    assert len(opened(kept)) == 2


def test_whoever_wants_no_more_results_does_not_get_them_later(host: Host) -> None:
    next(host.ingest(imagined("a", "b", "c")))
    assert verdicts(host.ingest(imagined("x", "y", "z"))) == {1: GOOD, 2: GOOD, 3: GOOD}


def test_what_the_catalogue_says_beside_its_results_is_told_once(
    host: Host, logged: list[logging.LogRecord]
) -> None:
    list(host.ingest(imagined("twice", "stranger", "garbage", "twice.2")))
    assert [record.getMessage() for record in logged if record.levelno >= logging.WARNING] == [
        "ignored an answer of the catalogue: not asked, or not any more: [1, 'ingested', '']"
    ]


def test_what_the_catalogue_prints_is_logged_for_who_wants_to_debug(
    host: Host, logged: list[logging.LogRecord]
) -> None:
    list(host.ingest(imagined("print")))
    host.close()
    said = [record.getMessage() for record in logged if record.levelno == logging.DEBUG]
    assert (said.count("catalogue: chatter"), said.count("catalogue: complaint")) == (12_800, 12_800)


def test_to_close_lets_the_catalogue_close(host: Host, kept: Path) -> None:
    list(host.ingest(imagined("a")))
    host.close()
    assert Path(f"{kept}.closed").exists()


def test_nothing_that_the_catalogue_started_outlives_it(host: Host) -> None:
    list(host.ingest(imagined("fork")))
    group = host.pid
    assert group is not None
    host.close()
    deadline = time.monotonic() + 10
    while _lives(group) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _lives(group)


def _lives(group: int) -> bool:
    """Whether a process group has anybody in it."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_version_is_told_without_opening(host: Host, kept: Path) -> None:
    assert (host.version(), Path(f"{kept}.opened").exists()) == ("nasty 1.0", False)


def test_a_wrong_configuration_is_told_with_its_key(tmp_path: Path) -> None:
    with (
        Host(NASTY, {"path": "x", "colour": "red"}, timeout=5) as host,
        pytest.raises(CatalogueError, match=r"^ingester\.config\.colour: not known$"),
    ):
        host.open()
