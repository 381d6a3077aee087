"""Questions of an operator, asked of a ledger with or without a manager."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import Failure, LedgerError, Scope
from common.ledger.ledger import Ledger
from common.ledger.reader import InTrouble, LedgerReader
from common.ledger.rows import (
    Carried,
    FailureGroup,
    Origin,
    Rate,
    Receipt,
    Ride,
    Total,
    Transition,
    VersionStory,
    Waiting,
)
from handoff.lifecycle import LIFECYCLE
from tests.apart import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, apart, give_up
from tests.ledgers import (
    NOW,
    UNREACHABLE,
    UNREADABLE,
    bring,
    carry,
    checksum,
    done,
    failed,
    found,
    manager,
    open_ledger,
    take,
    write,
)


@pytest.fixture
def reader(ledger: Ledger) -> Iterator[LedgerReader]:
    with LedgerReader.open(ledger.path) as reader:
        yield reader


def test_a_new_ledger_has_an_answer_to_everything(ledger: Ledger, reader: LedgerReader) -> None:
    nothing = {"1m": Rate(0, 0), "5m": Rate(0, 0), "15m": Rate(0, 0)}
    assert (reader.id, reader.manager_kind, reader.algorithm) == (ledger.id, "handoff", None)
    assert (reader.totals(), reader.waits(), reader.failures(), reader.carrying()) == ((), (), (), ())
    assert (reader.oldest_waiting(), reader.manager(), reader.history(b"a")) == (None, None, ())
    assert (reader.rates("delivered", now_ms=NOW), reader.rates("found", now_ms=NOW)) == (nothing, nothing)


def test_totals_are_those_of_the_writer(ledger: Ledger, reader: LedgerReader) -> None:
    ledger.record([found(b"a", size=3), found(b"b", size=4)], now_ms=NOW)
    batch = take(ledger, limit=1)
    bring(ledger, batch, failed(batch.entries[0]))
    told = {Total("found", "", 1, 4), Total("failed", UNREADABLE.cause, 1, 3)}
    assert set(reader.totals()) == set(ledger.totals()) == told


def test_rates_count_deliveries_within_their_windows(ledger: Ledger, reader: LedgerReader) -> None:
    for age in (1000, 600, 200, 30):
        now = NOW - age * 1000
        ledger.record([found(b"%d" % age), found(b"%d again" % age)], now_ms=now)
        carry(ledger, "light", now_ms=now)
    rates = {"1m": Rate(2, 20), "5m": Rate(4, 40), "15m": Rate(6, 60)}
    assert (reader.rates("delivered", now_ms=NOW), reader.rates("found", now_ms=NOW)) == (rates, rates)
    assert reader.rates("delivered", now_ms=NOW, windows=[3600]) == {"60m": Rate(8, 80)}
    assert reader.rates("delivered", now_ms=NOW + 3_600_000)["15m"] == Rate(0, 0)


def test_a_clock_that_was_set_back_does_not_count_the_future(ledger: Ledger, reader: LedgerReader) -> None:
    ledger.record([found()], now_ms=NOW + 7_200_000)
    assert reader.rates("found", now_ms=NOW)["15m"] == Rate(0, 0)


def test_what_has_waited_longest_is_told_with_its_reason(ledger: Ledger, reader: LedgerReader) -> None:
    ledger.record([found(b"held")], now_ms=NOW - 9)
    carry(ledger, "light")
    ledger.record([found(b"old")], now_ms=NOW)
    ledger.record([found(b"young", mtime_ns=1)], now_ms=NOW + 1)
    batch = take(ledger)
    assert [entry.path for entry in batch.entries] == [b"young", b"old"]
    bring(ledger, batch, failed(batch.entries[0]), failed(batch.entries[1], UNREACHABLE))
    old = Waiting("found", NOW, b"old", UNREACHABLE.reason)
    young = Waiting("failed", NOW + 1, b"young", UNREADABLE.reason)
    assert reader.waits() == (old, young)
    assert reader.oldest_waiting() == old


def test_what_is_in_flight_still_waits(ledger: Ledger, reader: LedgerReader) -> None:
    ledger.record([found()], now_ms=NOW)
    take(ledger)
    assert reader.oldest_waiting() == Waiting("sending", NOW, b"a.fits", "")


def test_failures_are_grouped_by_cause_with_an_example_and_the_next_try(
    ledger: Ledger, reader: LedgerReader
) -> None:
    ledger.record([found(b"%d" % number, mtime_ns=number) for number in range(6)], now_ms=NOW)
    batch = take(ledger)
    lasting = Failure(Scope.FILE, "name too long", "0: name too long", transient=False)
    bring(
        ledger,
        batch,
        failed(batch.entries[0], lasting),
        failed(batch.entries[1], replace(UNREADABLE, transient=False)),
        *[failed(entry) for entry in batch.entries[2:5]],
        done(batch.entries[5], "conflict", "light", reason="other content is there"),
    )
    groups = reader.failures()
    assert groups[0] == FailureGroup(
        "failed", UNREADABLE.cause, b"2", UNREADABLE.reason, files=4, bytes=40, next_try=NOW + 10_000
    )
    assert set(groups[1:]) == {
        FailureGroup("failed", "name too long", b"0", lasting.reason, files=1, bytes=10, next_try=None),
        FailureGroup(
            "conflict", "conflict", b"5", "other content is there", files=1, bytes=10, next_try=None
        ),
    }
    assert reader.failures(limit=1) == groups[:1]


def test_files_in_trouble_are_listed_page_by_page_what_is_due_first(
    ledger: Ledger, reader: LedgerReader
) -> None:
    names = [b"%d" % number for number in range(7)]
    ledger.record([found(name) for name in names], now_ms=NOW)
    batch = take(ledger)
    for_good = replace(UNREADABLE, transient=False)
    bring(
        ledger,
        batch,
        *[failed(entry, for_good if entry.path in names[:3] else UNREADABLE) for entry in batch.entries],
    )
    listed: list[InTrouble] = []
    while page := reader.in_trouble(
        "failed", UNREADABLE.cause, after=listed[-1] if listed else None, limit=2
    ):
        listed += page
    assert [file.path for file in listed] == names[3:] + names[:3]
    assert [file.due_at for file in listed] == [NOW + 10_000] * 4 + [None] * 3
    assert {(file.attempts, file.reason) for file in listed} == {(1, UNREADABLE.reason)}
    assert reader.in_trouble("failed", "another cause") == ()


def test_whether_a_directory_has_known_files_is_told(ledger: Ledger, reader: LedgerReader) -> None:
    ledger.record([found(b"night/a"), found(b"night 2"), found(b"x")], now_ms=NOW)
    assert [reader.knows_below(path) for path in (b"night", b"nigh", b"x", b"night/a")] == [
        True,
        False,
        False,
        False,
    ]


def test_batches_in_flight_are_told_by_worker(ledger: Ledger, reader: LedgerReader) -> None:
    ledger.record([found(b"%d" % number, mtime_ns=number) for number in range(3)], now_ms=NOW)
    take(ledger, limit=2, worker=1)
    take(ledger, limit=1, worker=0, now_ms=NOW + 5)
    ledger.progress(1, phase="send", progress_bytes=12)
    assert reader.carrying() == (
        Carried(2, 0, "sending", NOW + 5, "", b"2", files=1, bytes=10, progress_bytes=0),
        Carried(1, 1, "sending", NOW, "send", b"0", files=2, bytes=20, progress_bytes=12),
    )


def test_a_managers_last_beat_is_told(ledger: Ledger, reader: LedgerReader) -> None:
    ledger.beat(manager(paused="the buffer's disk is full"))
    last = manager(
        heartbeat_at=NOW + 1000,
        endpoint_state="unreachable",
        endpoint_since=NOW,
        endpoint_reason="no route to host",
        disk={"buffer": {"free_bytes": 5, "total_bytes": 9, "free_inodes": 2}},
    )
    ledger.beat(last)
    assert reader.manager() == last


def test_a_files_whole_story_is_told(ledger: Ledger, reader: LedgerReader) -> None:
    first, second = found(content="light"), found(content="dark", inode=8)
    ledger.record([first], now_ms=NOW)
    bring(ledger, take(ledger, now_ms=NOW + 1), now_ms=NOW + 2, error="worker killed")
    carry(ledger, "light", now_ms=NOW + 3)
    receipt = Receipt(b"a.fits", checksum("light"), "stored", NOW + 4)
    assert ledger.receipts([receipt, replace(receipt, path=b"unknown")]) == 1
    assert ledger.receipts([receipt]) == 0
    ledger.record([second], now_ms=NOW + 5)
    ride = Ride(1, "sending", 0, NOW + 1, NOW + 2, 1, 10, {"send": 0.5}, 0, "worker killed")
    later = replace(ride, batch_id=2, started_at=NOW + 3, finished_at=NOW + 3, error="")
    assert reader.history(b"a.fits") == (
        VersionStory(
            id=2,
            path=b"a.fits",
            fence=second.fence,
            checksum=checksum("dark"),
            state="found",
            step=None,
            attempts=0,
            claims=0,
            due_at=None,
            cause="",
            reason="",
            bulky=False,
            found_at=NOW + 5,
            changed_at=NOW + 5,
            transitions=(Transition(NOW + 5, "", "found", None, ""),),
            rides=(),
            receipts=(),
        ),
        VersionStory(
            id=1,
            path=b"a.fits",
            fence=first.fence,
            checksum=checksum("light"),
            state="held",
            step=None,
            attempts=0,
            claims=0,
            due_at=None,
            cause="",
            reason="",
            bulky=False,
            found_at=NOW,
            changed_at=NOW + 3,
            transitions=(
                Transition(NOW, "", "found", None, ""),
                Transition(NOW + 1, "found", "sending", 1, ""),
                Transition(NOW + 2, "sending", "found", 1, "worker killed"),
                Transition(NOW + 3, "found", "sending", 2, ""),
                Transition(NOW + 3, "sending", "delivered", 2, ""),
                Transition(NOW + 3, "delivered", "holding", 3, ""),
                Transition(NOW + 3, "holding", "held", 3, ""),
            ),
            rides=(ride, later, replace(later, batch_id=3, step="holding")),
            receipts=(receipt,),
        ),
    )


def test_a_merged_entrys_story_is_part_of_the_versions(ledger: Ledger, reader: LedgerReader) -> None:
    ledger.record([found()], now_ms=NOW)
    carry(ledger, "light")
    # The holding area's copy stays; the same content comes again while nobody has hashed it yet.
    columns = "path, inode, size, mtime_ns, ctime_ns, state, found_at, changed_at"
    write(
        ledger.path,
        f"INSERT INTO files ({columns}) VALUES (?, 8, 10, 5, 5, 'found', ?, ?)",
        b"a.fits",
        NOW,
        NOW,
    )
    batch = take(ledger, now_ms=NOW + 1)
    bring(ledger, batch, done(batch.entries[0], "delivered", "light"), now_ms=NOW + 2)
    (story,) = reader.history(b"a.fits")
    assert [(move.source, move.target, move.reason) for move in story.transitions[-6:]] == [
        ("", "found", ""),
        ("found", "sending", ""),
        ("held", "found", "came again, as entry 2"),
        ("found", "sending", "came again, as entry 2"),
        ("sending", "delivered", ""),
        ("sending", "", "the same content as entry 1"),
    ]
    assert (story.state, story.found_at, [ride.batch_id for ride in story.rides]) == (
        "delivered",
        NOW,
        [1, 2, 3],
    )


def test_several_questions_can_be_asked_of_one_instant(ledger: Ledger, reader: LedgerReader) -> None:
    ledger.record([found(b"a")], now_ms=NOW)
    with reader.snapshot():
        before = reader.totals()
        ledger.record([found(b"b")], now_ms=NOW)
        assert (reader.totals(), reader.history(b"b"), reader.waits()[0].path) == (before, (), b"a")
    assert len(reader.history(b"b")) == 1


def test_reading_leaves_no_trace(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([found()], now_ms=NOW)
    before = (tmp_path / "handoff.db").read_bytes()
    with LedgerReader.open(tmp_path / "handoff.db") as reader:
        assert len(reader.totals()) == 1
    assert (tmp_path / "handoff.db").read_bytes() == before


def read_without_rights(path: Path) -> str:
    """What a process is told that may read the ledger but not write beside it."""
    give_up(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)
    path.parent.chmod(0o555)
    path.chmod(0o444)
    try:
        with LedgerReader.open(path) as reader:
            return f"{len(reader.totals())} total"
    except LedgerError as error:
        return f"{error.message} {error.hint}"


def test_who_may_not_write_beside_a_ledger_is_told_why_it_can_not_be_read(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([found()], now_ms=NOW)
    told = apart(read_without_rights, tmp_path / "handoff.db")
    assert "can't be read while no manager has it open" in told
    assert "as the user that the manager runs as" in told


def test_who_may_not_write_beside_a_ledger_reads_it_while_a_manager_runs(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([found()], now_ms=NOW)
        assert apart(read_without_rights, ledger.path) == "1 total"


def test_a_missing_ledger_is_told(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger at"):
        LedgerReader.open(tmp_path / "handoff.db")
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_of_another_kind_or_version_is_told(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    path = tmp_path / "handoff.db"
    with pytest.raises(LedgerError, match="of the kind `handoff`, not `endpoint`"):
        LedgerReader.open(path, manager="endpoint")
    write(path, "PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="schema version 99"):
        LedgerReader.open(path)


def test_a_name_that_means_something_in_a_uri_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=rwc#b%41 \udcff.db"
    with Ledger.open(path, LIFECYCLE) as ledger, LedgerReader.open(path) as reader:
        assert reader.id == ledger.id


def test_a_version_tells_what_its_delivery_note_says(ledger: Ledger) -> None:
    ledger.record([found(content="light")], now_ms=NOW)
    origin = Origin(b"a.fits", 10, checksum("light"), b"batch-1", NOW - 1)
    ledger.keep_origins([origin, replace(origin, note=b"batch-0", sent_at=NOW - 2)])
    with LedgerReader.open(ledger.path) as reader:
        [version] = reader.history(b"a.fits")
    assert version.origin == origin
