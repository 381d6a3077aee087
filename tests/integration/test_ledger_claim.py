"""Handing work out: what a claim takes, in which order, and what it leaves."""

from itertools import permutations

import pytest

from common.entry import Batch, Entry
from common.ledger.ledger import Ledger
from handoff.lifecycle import HOLD, SEND
from tests.ledgers import (
    NOW,
    UNREACHABLE,
    bring,
    done,
    failed,
    found,
    moves,
    states,
    take,
)


def paths(batch: Batch) -> list[bytes]:
    return [entry.path for entry in batch.entries]


def test_a_claim_gives_entries_and_marks_them_as_in_flight(ledger: Ledger) -> None:
    file = found(content="light")
    ledger.record([file], now_ms=NOW)
    entry = Entry(1, b"a.fits", file.fence, file.checksum, "sending", attempts=0, claims=1)
    assert take(ledger) == Batch(1, SEND, (entry,))
    assert moves(ledger, 1) == ["found", "sending"]


def test_nothing_is_claimed_twice(ledger: Ledger) -> None:
    ledger.record([found(b"%d" % number) for number in range(10)], now_ms=NOW)
    first, second = take(ledger, limit=6), take(ledger, limit=6)
    assert (len(first.entries), len(second.entries)) == (6, 4)
    assert ledger.claim(SEND, limit=6, max_bytes=10**9, worker=0, now_ms=NOW) is None
    assert set(paths(first)).isdisjoint(paths(second))


@pytest.mark.parametrize(("newest_first", "order"), [(False, [b"1", b"2", b"3"]), (True, [b"3", b"2", b"1"])])
@pytest.mark.parametrize("arrival", list(permutations([1, 2, 3])))
def test_the_order_is_that_of_modification_times(
    ledger: Ledger, newest_first: bool, order: list[bytes], arrival: tuple[int, ...]
) -> None:
    files = [found(b"%d" % number, mtime_ns=number, bulky=number == 2) for number in arrival]
    ledger.record(files, now_ms=NOW)
    assert paths(take(ledger, newest_first=newest_first)) == order


def test_some_of_those_that_wait_can_be_passed_over(ledger: Ledger) -> None:
    ledger.record(
        [found(b"%d" % number, mtime_ns=number, bulky=number == 2) for number in range(5)], now_ms=NOW
    )
    assert paths(take(ledger, skip=1, limit=2)) == [b"1", b"2"]
    assert paths(take(ledger, skip=2, newest_first=True)) == [b"0"]
    assert ledger.claim(SEND, limit=9, max_bytes=1, worker=0, now_ms=NOW, skip=2) is None


def test_what_failed_is_not_passed_over(ledger: Ledger) -> None:
    ledger.record([found(b"poison"), found(b"good", mtime_ns=NOW * 10**6 + 1)], now_ms=NOW)
    batch = take(ledger, limit=1)
    bring(ledger, batch, failed(batch.entries[0]))
    assert paths(take(ledger, now_ms=NOW + 60_000, skip=1)) == [b"poison"]


def test_times_beyond_what_an_integer_holds_come_last(ledger: Ledger) -> None:
    ledger.record(
        [found(b"far", mtime_ns=2**70), found(b"now", mtime_ns=5, bulky=True), found(b"old", mtime_ns=-5)],
        now_ms=NOW,
    )
    assert paths(take(ledger, newest_first=True)) == [b"far", b"now", b"old"]


@pytest.mark.parametrize(
    ("bulky", "taken"), [(None, {b"big", b"small"}), (False, {b"small"}), (True, {b"big"})]
)
def test_bulky_files_can_be_left_or_taken_alone(
    ledger: Ledger, bulky: bool | None, taken: set[bytes]
) -> None:
    ledger.record([found(b"big", bulky=True), found(b"small")], now_ms=NOW)
    assert set(paths(take(ledger, bulky=bulky))) == taken


@pytest.mark.parametrize(("max_bytes", "files"), [(0, 1), (10, 1), (29, 2), (30, 3), (1000, 5)])
def test_a_batch_stops_at_its_bytes_but_holds_one_file_at_least(
    ledger: Ledger, max_bytes: int, files: int
) -> None:
    ledger.record([found(b"%d" % number) for number in range(5)], now_ms=NOW)
    batch = take(ledger, max_bytes=max_bytes)
    assert (len(batch.entries), batch.bytes) == (files, 10 * files)


def test_a_failed_file_waits_until_it_is_due(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    batch = take(ledger)
    bring(ledger, batch, failed(batch.entries[0]))
    assert ledger.next_due(SEND) == NOW + 10_000
    assert ledger.next_due(HOLD) is None
    assert ledger.claim(SEND, limit=1, max_bytes=1, worker=0, now_ms=NOW + 9_999) is None
    assert take(ledger, now_ms=NOW + 10_000).entries[0].attempts == 1
    assert ledger.next_due(SEND) is None


def test_what_failed_goes_first_and_rides_alone(ledger: Ledger) -> None:
    ledger.record([found(b"poison"), found(b"good", mtime_ns=NOW * 10**6 + 1)], now_ms=NOW)
    batch = take(ledger, limit=1)
    bring(ledger, batch, failed(batch.entries[0]))
    later = NOW + 60_000
    assert paths(take(ledger, now_ms=later)) == [b"poison"]
    assert paths(take(ledger, now_ms=later)) == [b"good"]


def test_what_failed_rides_alone_even_after_a_lost_connection(ledger: Ledger) -> None:
    ledger.record([found(b"poison"), found(b"good", mtime_ns=NOW * 10**6 + 1)], now_ms=NOW)
    batch = take(ledger, limit=1)
    bring(ledger, batch, failed(batch.entries[0]))
    batch = take(ledger, now_ms=NOW + 60_000)
    bring(ledger, batch, failed(batch.entries[0], UNREACHABLE))
    assert states(ledger)[b"poison"] == "found"
    again = take(ledger, now_ms=NOW)
    assert (paths(again), again.entries[0].attempts) == ([b"poison"], 1)


@pytest.mark.parametrize(("bulky", "due"), [(True, b"big"), (False, b"small")])
def test_what_failed_is_chosen_by_its_size_as_well(ledger: Ledger, bulky: bool, due: bytes) -> None:
    ledger.record([found(b"big", bulky=True), found(b"small")], now_ms=NOW)
    batch = take(ledger)
    bring(ledger, batch, *[failed(entry) for entry in batch.entries])
    assert paths(take(ledger, now_ms=NOW + 60_000, bulky=bulky)) == [due]


def test_times_of_next_tries_can_follow_the_clock(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    batch = take(ledger)
    bring(ledger, batch, failed(batch.entries[0]))
    assert ledger.reschedule(-3_600_000) == 1
    assert ledger.next_due(SEND) == NOW + 10_000 - 3_600_000


def test_each_step_claims_what_the_one_before_it_completed(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    batch = take(ledger)
    bring(ledger, batch, done(batch.entries[0], "delivered", "light"))
    assert ledger.claim(SEND, limit=1, max_bytes=1, worker=0, now_ms=NOW) is None
    batch = take(ledger, HOLD)
    assert [(entry.state, entry.claims, entry.attempts) for entry in batch.entries] == [("holding", 1, 0)]
