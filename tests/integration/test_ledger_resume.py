"""Coming back to work: after a crash, by an operator's wish, or no more because the content is gone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import Failure, Scope
from common.ledger.ledger import Ledger
from handoff.lifecycle import HOLD, SEND
from tests.ledgers import (
    NOW,
    assert_sound,
    bring,
    carry,
    done,
    failed,
    found,
    moves,
    open_ledger,
    rows,
    states,
    take,
)

LATER = NOW + 100_000


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path) as ledger:
        yield ledger
        assert_sound(ledger)


def fail(ledger: Ledger, *paths: bytes, cause: str = "not readable", attempts: int = 1) -> None:
    """Enter files and let them fail."""
    ledger.record([found(path) for path in paths], now_ms=NOW)
    failure = Failure(Scope.FILE, cause, "what happened")
    for attempt in range(attempts):
        batch = take(ledger, now_ms=NOW + attempt * 60_000)
        bring(ledger, batch, *[failed(entry, failure) for entry in batch.entries])


def test_a_rescue_puts_each_entry_in_flight_back_to_its_step(ledger: Ledger) -> None:
    ledger.record([found(b"delivered")], now_ms=NOW)
    carry(ledger, "light", until="delivered")
    ledger.record([found(b"found")], now_ms=NOW)
    take(ledger)
    take(ledger, HOLD)
    assert ledger.rescue(now_ms=LATER) == 2
    assert states(ledger) == {b"delivered": "delivered", b"found": "found"}
    assert rows(ledger, "SELECT finished_at FROM batches WHERE id > 1") == [(LATER,), (LATER,)]
    assert [take(ledger).entries[0].claims, take(ledger, HOLD).entries[0].claims] == [2, 2]


def test_a_rescue_of_nothing_changes_nothing(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    assert ledger.rescue(now_ms=LATER) == 0
    assert moves(ledger, 1) == ["found"]


def test_what_failed_before_is_due_at_once_after_a_rescue(ledger: Ledger) -> None:
    fail(ledger, b"poison")
    take(ledger, now_ms=LATER)
    ledger.rescue(now_ms=NOW)
    ledger.record([found(b"good")], now_ms=NOW)
    assert [entry.path for entry in take(ledger).entries] == [b"poison"]


def test_a_retry_makes_spent_files_eligible_with_their_attempts_reset(ledger: Ledger) -> None:
    fail(ledger, b"a", attempts=3)
    assert ledger.retry(now_ms=NOW) == 1
    entry = take(ledger).entries[0]
    assert (entry.attempts, entry.claims) == (0, 4)


def test_a_retry_does_not_wait_for_the_next_try(ledger: Ledger) -> None:
    fail(ledger, b"a")
    assert ledger.retry(now_ms=NOW) == 1
    assert take(ledger).entries[0].path == b"a"


def test_a_retry_goes_back_to_the_step_that_failed(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    carry(ledger, "light", until="delivered")
    batch = take(ledger, HOLD)
    bring(ledger, batch, failed(batch.entries[0]))
    ledger.retry(now_ms=NOW)
    assert states(ledger) == {b"a.fits": "delivered"}


def test_a_retry_of_conflicts_sends_them_again(ledger: Ledger) -> None:
    ledger.record([found()], now_ms=NOW)
    batch = take(ledger)
    bring(ledger, batch, done(batch.entries[0], "conflict", "light"))
    assert ledger.retry(now_ms=NOW) == 0
    assert ledger.retry(states=("failed", "conflict"), now_ms=NOW) == 1
    assert states(ledger) == {b"a.fits": "found"}


@pytest.mark.parametrize("state", ["found", "held", "vanished", "no such state"])
def test_a_retry_touches_only_what_is_in_trouble(ledger: Ledger, state: str) -> None:
    ledger.record([found(b"held")], now_ms=NOW)
    carry(ledger, "light")
    ledger.record([found(b"found"), found(b"vanished")], now_ms=NOW)
    ledger.vanish([3], reason="gone", now_ms=NOW)
    assert ledger.retry(states=[state], now_ms=NOW) == 0


@pytest.mark.parametrize(
    ("paths", "retried"),
    [
        ([b"d/a"], {b"d/a"}),
        ([b"d"], {b"d/a", b"d/e/a"}),
        ([b"d/"], {b"d/a", b"d/e/a"}),
        ([b"d/e", b"d-a"], {b"d/e/a", b"d-a"}),
        ([b""], {b"d/a", b"d/e/a", b"d-a", b"d0", b"da"}),
        ([b"nothing"], set()),
        ([], set()),
    ],
)
def test_a_retry_may_name_files_and_directories(
    ledger: Ledger, paths: list[bytes], retried: set[bytes]
) -> None:
    fail(ledger, b"d/a", b"d/e/a", b"d-a", b"d0", b"da")
    assert ledger.retry(paths=paths, now_ms=NOW) == len(retried)
    assert {path for path, state in states(ledger).items() if state == "found"} == retried


@pytest.mark.parametrize(("cause", "retried"), [("READABLE", 2), ("not readable", 2), ("full", 1), ("x", 0)])
def test_a_retry_may_name_a_part_of_the_cause(ledger: Ledger, cause: str, retried: int) -> None:
    fail(ledger, b"full", cause="disk Full")
    fail(ledger, b"a", b"b")
    assert ledger.retry(cause=cause, now_ms=NOW) == retried


def test_a_retry_of_thousands_counts_them_all(ledger: Ledger) -> None:
    ledger.record([found(b"%d" % number) for number in range(4500)], now_ms=NOW)
    batch = take(ledger, limit=4500)
    bring(ledger, batch, *[failed(entry) for entry in batch.entries])
    assert ledger.retry(now_ms=NOW) == 4500


def test_only_what_waits_can_vanish(ledger: Ledger) -> None:
    ledger.record([found(b"held")], now_ms=NOW)
    carry(ledger, "light")
    fail(ledger, b"failed")
    ledger.record([found(b"in flight"), found(b"waiting")], now_ms=NOW)
    take(ledger, limit=1)
    before = states(ledger)
    assert ledger.vanish([1, 2, 3, 4, 99], reason="not in the buffer", now_ms=LATER) == 2
    gone = {path for path, state in states(ledger).items() if state == "vanished"}
    assert gone == {b"failed"} | {path for path, state in before.items() if state == "found"}
    assert rows(ledger, "SELECT DISTINCT reason, cause FROM files WHERE state = 'vanished'") == [
        ("not in the buffer", "")
    ]


def test_no_next_try_lies_further_ahead_than_it_may(ledger: Ledger) -> None:
    fail(ledger, b"far", b"near")
    ledger.reschedule(86_400_000)
    assert ledger.bring_forward(NOW + 60_000) == 2
    assert ledger.bring_forward(NOW + 60_000) == 0
    assert ledger.next_due(SEND) == NOW + 60_000


def test_what_is_spent_for_a_cause_is_tried_once_more_with_its_attempts_kept(ledger: Ledger) -> None:
    fail(ledger, b"spent", cause="in doubt", attempts=3)
    fail(ledger, b"other cause", attempts=3)
    fail(ledger, b"not spent", cause="in doubt")
    ledger.record([found(b"new")], now_ms=NOW)
    assert ledger.once_more(SEND, "in doubt", reason="why", now_ms=LATER) == b"spent"
    assert rows(ledger, "SELECT target, reason FROM history WHERE file_id = 1 ORDER BY seq DESC LIMIT 1") == [
        ("found", "why")
    ]
    assert ledger.once_more(SEND, "in doubt", reason="why", now_ms=LATER) is None
    tried = take(ledger, now_ms=LATER).entries
    assert [(entry.path, entry.attempts) for entry in tried] == [(b"not spent", 1), (b"spent", 3)]


@pytest.mark.parametrize(("seconds", "passed"), [(-1, False), (0, False), (1, True)])
def test_what_has_passed_counts_from_the_first_failure_on(ledger: Ledger, seconds: int, passed: bool) -> None:
    """It has failed before that as well, until somebody asked for another try."""
    fail(ledger, b"a", attempts=2)
    ledger.retry(now_ms=NOW)
    ledger.record([found(b"good")], now_ms=LATER)
    batch = take(ledger, now_ms=LATER)
    bad, good = sorted(batch.entries, key=lambda entry: entry.path)
    bring(ledger, replace(batch, entries=(bad, good)), failed(bad), now_ms=LATER)
    batch = take(ledger, now_ms=LATER)
    bring(ledger, batch, done(good, "delivered", "light"), now_ms=LATER + seconds * 1000)
    bad = take(ledger, now_ms=LATER + 60_000).entries[0]
    assert (bad.attempts, ledger.has_passed_since(SEND, bad)) == (1, passed)
