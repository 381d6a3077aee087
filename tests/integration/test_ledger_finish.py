"""Writing outcomes: where entries go, what is kept of them, and entries that turn out to be one."""

from dataclasses import replace

import pytest

from common.entry import Done
from common.errors import LedgerError, Scope
from common.files import Fence
from common.ledger.ledger import Ledger
from handoff.lifecycle import HOLD, SEND
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
    moves,
    rows,
    states,
    take,
    write,
)

LATER = NOW + 100_000


def put(ledger: Ledger, state: str, content: str = "light") -> None:
    """Bring one hashed version of a.fits into a state."""
    ledger.record([found(content=content)], now_ms=NOW)
    if state in ("delivered", "held", "holding"):
        carry(ledger, content, until=state)
    elif state == "vanished":
        ledger.vanish([1], reason="gone", now_ms=NOW)
    elif state != "found":
        batch = take(ledger)
        if state == "failed":
            bring(ledger, batch, failed(batch.entries[0]))
        elif state == "conflict":
            bring(ledger, batch, done(batch.entries[0], "conflict"))


def put_unhashed_beside(ledger: Ledger) -> None:
    """Enter an unhashed version of a.fits beside the known one, as discovery does when it races a worker."""
    columns = "path, inode, size, mtime_ns, ctime_ns, state, found_at, changed_at"
    values = (b"a.fits", 8, 20, 5, 5, "found", LATER, LATER)
    write(ledger.path, f"INSERT INTO files ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *values)


def test_a_done_entry_reaches_its_state_with_what_was_learned(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    batch = take(ledger)
    fence = Fence(7, 11, 12, 13)
    assert bring(ledger, batch, Done(1, "delivered", checksum("light"), fence, "was there already")) == 1
    version = ledger.versions([b"a.fits"])[b"a.fits"][0]
    assert (version.state, version.checksum, version.fence) == ("delivered", checksum("light"), fence)
    kept = rows(ledger, "SELECT reason, attempts, claims, batch_id FROM files")
    assert kept == [("was there already", 0, 0, None)]


def test_outcomes_are_written_file_by_file(ledger: Ledger) -> None:
    ledger.record([found(b"%d" % number, mtime_ns=number) for number in range(5)], now_ms=NOW)
    batch = take(ledger)
    a, b, c, d, _ = batch.entries
    outcomes = (
        done(a, "delivered", "0"),
        failed(b),
        failed(c, UNREACHABLE),
        done(d, "vanished", reason="gone"),
    )
    assert bring(ledger, batch, *outcomes) == 5
    assert states(ledger) == {
        b"0": "delivered",
        b"1": "failed",
        b"2": "found",
        b"3": "vanished",
        b"4": "found",
    }


def test_the_batch_keeps_what_it_cost(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    batch = take(ledger)
    ledger.progress(batch.id, phase="send", progress_bytes=4)
    assert rows(ledger, "SELECT phase, progress_bytes FROM batches") == [("send", 4)]
    bring(ledger, batch, failed(batch.entries[0]), now_ms=LATER, error="exit code 23")
    columns = "started_at, finished_at, files, bytes, progress_bytes, phases, exit_code, error"
    assert rows(ledger, f"SELECT {columns} FROM batches") == [
        (NOW, LATER, 1, 10, 10, '{"send": 0.5}', 0, "exit code 23")
    ]


def test_a_failure_counts_an_attempt_until_they_are_spent(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    kept = []
    for attempt in range(3):
        now = NOW + attempt * 1_000_000
        batch = take(ledger, now_ms=now)
        bring(ledger, batch, failed(batch.entries[0]), now_ms=now)
        kept += rows(ledger, "SELECT attempts, due_at - ?, step, cause, reason FROM files", now)
    told = ("sending", UNREADABLE.cause, UNREADABLE.reason)
    assert kept == [(1, 10_000, *told), (2, 20_000, *told), (3, None, *told)]


def test_a_lasting_failure_waits_for_a_person_at_once(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    batch = take(ledger)
    bring(ledger, batch, failed(batch.entries[0], replace(UNREADABLE, transient=False)))
    assert (states(ledger), ledger.next_due(SEND)) == ({b"a.fits": "failed"}, None)


@pytest.mark.parametrize("scope", [Scope.CONNECTION, Scope.ENDPOINT, Scope.HANDOFF])
def test_nobody_elses_failure_costs_a_file_an_attempt(ledger: Ledger, scope: Scope) -> None:
    ledger.record([found()], now_ms=NOW)
    batch = take(ledger)
    bring(ledger, batch, failed(batch.entries[0], replace(UNREACHABLE, scope=scope), "light"))
    kept = rows(ledger, "SELECT state, attempts, claims, reason, cause FROM files")
    assert kept == [("found", 0, 1, UNREACHABLE.reason, "")]
    assert take(ledger).entries[0].checksum == checksum("light")


def test_an_entry_without_an_outcome_goes_back(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    assert bring(ledger, take(ledger), error="the worker was killed") == 1
    assert rows(ledger, "SELECT state, claims, reason FROM files") == [("found", 1, "the worker was killed")]
    assert take(ledger).entries[0].claims == 2


def test_success_clears_what_failed_before(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    batch = take(ledger)
    bring(ledger, batch, failed(batch.entries[0]))
    batch = take(ledger, now_ms=LATER)
    bring(ledger, batch, done(batch.entries[0], "delivered", "light"))
    assert rows(ledger, "SELECT step, attempts, claims, due_at, cause, reason FROM files") == [
        (None, 0, 0, None, "", "")
    ]


def test_a_failure_to_hold_is_tried_again_as_that(ledger: Ledger) -> None:
    put(ledger, "delivered")
    batch = take(ledger, HOLD)
    bring(ledger, batch, failed(batch.entries[0]))
    assert ledger.claim(SEND, limit=1, max_bytes=1, worker=0, now_ms=LATER) is None
    assert take(ledger, HOLD, now_ms=LATER).entries[0].attempts == 1


def test_a_conflict_is_counted_as_trouble(ledger: Ledger) -> None:
    put(ledger, "conflict")
    assert [(total.state, total.cause) for total in ledger.totals()] == [("conflict", "conflict")]


def test_a_batch_is_finished_once(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    batch = take(ledger)
    assert bring(ledger, batch, done(batch.entries[0], "delivered", "light")) == 1
    assert bring(ledger, batch, failed(batch.entries[0])) == 0
    assert states(ledger) == {b"a.fits": "delivered"}


def test_a_batch_that_was_rescued_changes_nothing_when_it_comes_late(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    late = take(ledger)
    ledger.rescue(now_ms=NOW)
    take(ledger)
    assert bring(ledger, late, done(late.entries[0], "delivered", "light")) == 0
    assert states(ledger) == {b"a.fits": "sending"}


def test_a_move_that_is_not_allowed_changes_nothing_at_all(ledger: Ledger) -> None:
    ledger.record([found(b"a"), found(b"b")], now_ms=NOW)
    batch = take(ledger)
    first, second = batch.entries
    with pytest.raises(LedgerError, match="not allowed"):
        bring(ledger, batch, done(first, "delivered", "light"), done(second, "held"))
    assert states(ledger) == {b"a": "sending", b"b": "sending"}
    assert rows(ledger, "SELECT finished_at FROM batches") == [(None,)]


def test_a_version_whose_content_was_replaced_has_vanished(ledger: Ledger) -> None:
    put(ledger, "found")
    batch = take(ledger)
    bring(ledger, batch, done(batch.entries[0], "delivered", "dark"))
    version = ledger.versions([b"a.fits"])[b"a.fits"][0]
    assert (version.state, version.checksum) == ("vanished", checksum("light"))


@pytest.mark.parametrize(
    ("before", "way"),
    [
        ("held", ["found", "sending", "delivered"]),
        ("vanished", ["found", "sending", "delivered"]),
        ("conflict", ["found", "sending", "delivered"]),
        ("failed", ["sending", "delivered"]),
        ("delivered", []),
    ],
)
def test_an_entry_that_is_a_known_version_becomes_that_one(
    ledger: Ledger, before: str, way: list[str]
) -> None:
    put(ledger, before)
    known = moves(ledger, 1)
    put_unhashed_beside(ledger)
    batch = take(ledger, now_ms=NOW)
    assert [entry.id for entry in batch.entries] == [2]
    assert bring(ledger, batch, done(batch.entries[0], "delivered", "light"), now_ms=LATER) == 1
    assert moves(ledger, 1) == known + way
    assert moves(ledger, 2) == ["found", "sending", ""]
    version = ledger.versions([b"a.fits"])[b"a.fits"][0]
    assert (version.id, version.state, version.fence.inode) == (1, "delivered", 8)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("held", "failed"),
        ("vanished", "failed"),
        ("failed", "failed"),
        ("delivered", "delivered"),
        ("conflict", "failed"),
    ],
)
def test_a_known_version_takes_over_the_failure_of_the_entry(ledger: Ledger, before: str, after: str) -> None:
    put(ledger, before)
    put_unhashed_beside(ledger)
    batch = take(ledger)
    bring(ledger, batch, failed(batch.entries[0], content="light"))
    assert rows(ledger, "SELECT id, state FROM files") == [(1, after)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("held", "found"),
        ("vanished", "found"),
        ("failed", "found"),
        ("delivered", "delivered"),
        ("conflict", "conflict"),
    ],
)
def test_a_known_version_waits_for_the_road_in_place_of_the_entry(
    ledger: Ledger, before: str, after: str
) -> None:
    put(ledger, before)
    put_unhashed_beside(ledger)
    batch = take(ledger)
    bring(ledger, batch, failed(batch.entries[0], UNREACHABLE, "light"))
    assert rows(ledger, "SELECT id, state, inode FROM files") == [(1, after, 8)]


@pytest.mark.parametrize("before", ["sending", "holding"])
def test_a_known_version_in_flight_is_left_to_its_worker(ledger: Ledger, before: str) -> None:
    put(ledger, before)
    put_unhashed_beside(ledger)
    batch = take(ledger)
    bring(ledger, batch, done(batch.entries[0], "delivered", "light"))
    assert rows(ledger, "SELECT id, state, inode FROM files") == [(1, before, 7)]


def test_both_entries_of_a_version_may_ride_together(ledger: Ledger) -> None:
    put(ledger, "found")
    put_unhashed_beside(ledger)
    batch = take(ledger)
    bring(ledger, batch, *[done(entry, "delivered", "light") for entry in batch.entries])
    assert rows(ledger, "SELECT id, state FROM files") == [(1, "delivered")]


def test_the_id_of_a_merged_entry_is_never_given_again(ledger: Ledger) -> None:
    put(ledger, "held")
    put_unhashed_beside(ledger)
    batch = take(ledger)
    bring(ledger, batch, done(batch.entries[0], "delivered", "light"))
    ledger.record([found(b"b")], now_ms=NOW)
    assert ledger.versions([b"b"])[b"b"][0].id == 3
