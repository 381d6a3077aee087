"""Discovery's verbs: what a page of found files does to the ledger."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.files import Fence
from common.ledger.ledger import Ledger
from common.ledger.rows import Found, Recorded, Version
from tests.ledgers import (
    NOW,
    bring,
    carry,
    checksum,
    done,
    failed,
    found,
    moves,
    open_ledger,
    rows,
    states,
    take,
)

HOSTILE = [b" a b", b"-rf", b"$(touch x)", b"new\nline", b"\xff\xfe", b"quote'\"", b"d/\x01", "é".encode()]


def test_an_unknown_path_is_a_new_entry(ledger: Ledger) -> None:
    file = found(b"night/a.fits")
    assert ledger.record([file], now_ms=NOW) == Recorded(added=1, renewed=0, unknown=())
    assert ledger.versions([b"night/a.fits", b"b"]) == {
        b"night/a.fits": (Version(1, file.fence, None, "found"),)
    }
    assert moves(ledger, 1) == ["found"]


def test_a_known_page_changes_nothing(ledger: Ledger) -> None:
    page = [found(b"%d" % number) for number in range(1200)]
    ledger.record(page, now_ms=NOW)
    before = rows(ledger, "SELECT * FROM files"), rows(ledger, "SELECT * FROM history")
    assert ledger.record(page, now_ms=NOW + 5) == Recorded(added=0, renewed=0, unknown=())
    assert (rows(ledger, "SELECT * FROM files"), rows(ledger, "SELECT * FROM history")) == before


def test_any_name_is_kept_exactly(ledger: Ledger) -> None:
    ledger.record([found(path) for path in HOSTILE], now_ms=NOW)
    assert set(ledger.versions(HOSTILE)) == set(HOSTILE)
    assert {entry.path for entry in take(ledger).entries} == set(HOSTILE)


@pytest.mark.parametrize("number", [0, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), -(2**63) - 1, 2**80])
def test_any_fence_is_kept_exactly(ledger: Ledger, number: int) -> None:
    fence = Fence(abs(number), 10, number, number)
    ledger.record([Found(b"a", fence)], now_ms=NOW)
    assert ledger.versions([b"a"])[b"a"][0].fence == fence
    assert take(ledger).entries[0].fence == fence


def test_the_last_of_two_sights_of_a_path_counts(ledger: Ledger) -> None:
    assert ledger.record([found(size=1), found(size=2)], now_ms=NOW).added == 1
    assert ledger.versions([b"a.fits"])[b"a.fits"][0].fence.size == 2


def test_an_empty_file_is_a_file(ledger: Ledger) -> None:
    ledger.record([found(b"a", "", size=0), found(b"b", "", size=0)], now_ms=NOW)
    assert [(total.files, total.bytes) for total in ledger.totals()] == [(2, 0)]


def test_the_same_content_under_two_names_is_two_entries(ledger: Ledger) -> None:
    assert ledger.record([found(b"a", "light"), found(b"b", "light")], now_ms=NOW).added == 2


def test_a_rewritten_unhashed_file_stays_one_entry(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    assert ledger.record([found(size=20)], now_ms=NOW + 5) == Recorded(added=0, renewed=1, unknown=())
    assert [version.fence.size for version in ledger.versions([b"a.fits"])[b"a.fits"]] == [20]
    assert moves(ledger, 1) == ["found"]


def test_a_rewritten_failed_file_begins_anew(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    batch = take(ledger)
    bring(ledger, batch, failed(batch.entries[0]))
    ledger.record([found(size=20)], now_ms=NOW)
    entry = take(ledger).entries[0]
    assert (entry.attempts, entry.claims, entry.fence.size) == (0, 1, 20)


def test_a_failed_file_that_is_unchanged_keeps_waiting(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    batch = take(ledger)
    bring(ledger, batch, failed(batch.entries[0]))
    assert ledger.record([found()], now_ms=NOW).renewed == 0
    assert states(ledger) == {b"a.fits": "failed"}


def test_a_file_in_flight_keeps_its_fence_for_the_worker_to_compare(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    take(ledger)
    assert ledger.record([found(size=20)], now_ms=NOW).renewed == 0
    assert ledger.versions([b"a.fits"])[b"a.fits"][0].fence.size == 10


def test_a_known_path_with_another_fence_must_be_hashed_first(ledger: Ledger) -> None:
    ledger.record([found(content="light")], now_ms=NOW)
    other = found(inode=8)
    assert ledger.record([other], now_ms=NOW) == Recorded(added=0, renewed=0, unknown=(other,))


def test_new_content_under_a_known_path_is_a_new_version(ledger: Ledger) -> None:
    ledger.record([found(content="light")], now_ms=NOW)
    assert ledger.record([found(content="dark", inode=8)], now_ms=NOW).added == 1
    versions = ledger.versions([b"a.fits"])[b"a.fits"]
    assert [(version.id, version.checksum) for version in versions] == [
        (2, checksum("dark")),
        (1, checksum("light")),
    ]


def test_known_content_with_another_fence_is_that_version(ledger: Ledger) -> None:
    ledger.record([found(content="light")], now_ms=NOW)
    again = found(content="light", inode=8)
    assert ledger.record([again], now_ms=NOW) == Recorded(added=0, renewed=1, unknown=())
    assert ledger.record([replace(again, checksum=None)], now_ms=NOW).unknown == ()


def test_a_hash_identifies_the_entry_that_had_none(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    ledger.record([found(content="light")], now_ms=NOW)
    assert [version.checksum for version in ledger.versions([b"a.fits"])[b"a.fits"]] == [checksum("light")]


def test_held_content_that_comes_again_is_delivered_again(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    carry(ledger, "light")
    assert ledger.record([found(inode=8)], now_ms=NOW + 5).unknown == (found(inode=8),)
    ledger.record([found(content="light", inode=8)], now_ms=NOW + 5)
    assert states(ledger) == {b"a.fits": "found"}
    assert rows(ledger, "SELECT found_at FROM files") == [(NOW + 5,)]
    assert moves(ledger, 1)[-2:] == ["held", "found"]


def test_a_fence_alone_does_not_prove_that_held_content_came_again(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    carry(ledger, "light")
    assert ledger.record([found()], now_ms=NOW).unknown == (found(),)
    assert states(ledger) == {b"a.fits": "held"}


@pytest.mark.parametrize("content", [None, "light"])
def test_a_vanished_file_that_comes_back_is_found_again(ledger: Ledger, content: str | None) -> None:
    ledger.record([found(content=content)], now_ms=NOW)
    assert ledger.vanish([1], reason="not in the buffer", now_ms=NOW) == 1
    assert ledger.record([found(content=content)], now_ms=NOW).renewed == 1
    assert moves(ledger, 1) == ["found", "vanished", "found"]


def test_a_fence_alone_does_not_prove_that_a_vanished_version_came_back(ledger: Ledger) -> None:
    ledger.record([found(content="light")], now_ms=NOW)
    ledger.vanish([1], reason="not in the buffer", now_ms=NOW)
    assert ledger.record([found()], now_ms=NOW).unknown == (found(),)


def test_a_conflict_waits_for_a_person_even_when_its_file_is_touched(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    batch = take(ledger)
    bring(ledger, batch, done(batch.entries[0], "conflict", "light"))
    ledger.record([found(content="light", inode=8)], now_ms=NOW)
    assert states(ledger) == {b"a.fits": "conflict"}
    assert ledger.versions([b"a.fits"])[b"a.fits"][0].fence.inode == 8


def test_the_algorithm_is_chosen_once(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        assert ledger.algorithm is None
        assert ledger.choose_algorithm("blake2b") == "blake2b"
        assert ledger.choose_algorithm("sha256") == "blake2b"
    with open_ledger(tmp_path) as ledger:
        assert ledger.algorithm == "blake2b"
