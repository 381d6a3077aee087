"""What the database itself refuses, whoever asks."""

import sqlite3
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from common.ledger.ledger import Ledger
from common.ledger.states import States
from handoff.lifecycle import LIFECYCLE
from tests.ledgers import NOW, assert_sound, bring, found, open_ledger, rows, take, write

STATES = States.of(LIFECYCLE)
PAIRS = [pair for pair in product(LIFECYCLE.states, repeat=2) if pair[0] != pair[1]]
ALLOWED = [pair for pair in PAIRS if pair in LIFECYCLE.moves]
REFUSED = [pair for pair in PAIRS if pair not in LIFECYCLE.moves]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """With one file in it, and batch 1."""
    with open_ledger(tmp_path) as ledger:
        ledger.record([found()], now_ms=NOW)
        bring(ledger, take(ledger))
        yield ledger
        assert_sound(ledger)


def put(ledger: Ledger, state: str) -> None:
    """Bring the file into a state, with all that must hold of it there, by any moves that lead there."""
    way, seen = {"found": ["found"]}, ["found"]
    for here in seen:
        for source, target in sorted(LIFECYCLE.moves):
            if source == here and target not in way:
                way[target] = [*way[here], target]
                seen.append(target)
    for step in way[state][1:]:
        move(ledger, step)


def move(ledger: Ledger, state: str, **changes: object) -> None:
    """Move the file as the verbs do, except for some columns."""
    values: dict[str, object] = {
        "state": state,
        "batch_id": 1 if state in STATES.steps else None,
        "settled": state not in STATES.unsettled,
        "cause": "why" if state in STATES.trouble else "",
    }
    values |= changes
    assignments = ", ".join(f"{column} = ?" for column in values)
    write(ledger.path, f"UPDATE files SET {assignments} WHERE id = 1", *values.values())


@pytest.mark.parametrize(("source", "target"), ALLOWED)
def test_the_moves_of_the_lifecycle_are_allowed(ledger: Ledger, source: str, target: str) -> None:
    put(ledger, source)
    move(ledger, target)
    assert rows(ledger, "SELECT source, target FROM history ORDER BY seq DESC LIMIT 1") == [(source, target)]


@pytest.mark.parametrize(("source", "target"), REFUSED)
def test_all_other_moves_are_refused(ledger: Ledger, source: str, target: str) -> None:
    put(ledger, source)
    with pytest.raises(sqlite3.IntegrityError, match="not allowed"):
        move(ledger, target)


@pytest.mark.parametrize("state", [state for state in LIFECYCLE.states if state != "found"])
def test_an_entry_begins_only_at_the_beginning(ledger: Ledger, state: str) -> None:
    columns = "path, inode, size, mtime_ns, ctime_ns, state, settled, found_at, changed_at"
    with pytest.raises(sqlite3.IntegrityError, match="begins"):
        write(ledger.path, f"INSERT INTO files ({columns}) VALUES (x'01', 1, 1, 1, 1, ?, 0, 1, 1)", state)


@pytest.mark.parametrize(
    "changes", [{"batch_id": None}, {"settled": 1}, {"cause": "why"}], ids=["no batch", "settled", "cause"]
)
def test_what_holds_of_a_state_is_part_of_the_move(ledger: Ledger, changes: dict[str, object]) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="not allowed"):
        move(ledger, "sending", **changes)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE history SET reason = 'other'",
        "UPDATE history SET seq = seq + 1 WHERE seq = 1",
        "DELETE FROM history",
        "DELETE FROM history WHERE seq = 1",
    ],
)
def test_history_is_append_only(ledger: Ledger, statement: str) -> None:
    before = rows(ledger, "SELECT * FROM history")
    with pytest.raises(sqlite3.IntegrityError, match="history is never"):
        write(ledger.path, statement)
    assert rows(ledger, "SELECT * FROM history") == before


def test_an_entry_is_not_removed(ledger: Ledger) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="merged"):
        write(ledger.path, "DELETE FROM files")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE files SET path = x'62'",
        "UPDATE files SET id = 5",
        "UPDATE files SET digest = zeroblob(32)",
        "UPDATE files SET algorithm = NULL, digest = NULL",
    ],
)
def test_a_version_stays_that_version(ledger: Ledger, statement: str) -> None:
    digest = "UPDATE files SET algorithm = 'sha256', digest = randomblob(32)"
    write(ledger.path, digest)
    with pytest.raises(sqlite3.IntegrityError, match="keeps its path and its digest"):
        write(ledger.path, statement)


@pytest.mark.parametrize(
    "assignment",
    [
        "size = -1",
        "attempts = -1",
        "claims = -1",
        "bulky = 2",
        "settled = 2",
        "algorithm = 'md5', digest = zeroblob(32)",
        "algorithm = 'sha256'",
        "algorithm = 'sha256', digest = zeroblob(16)",
        "due_at = 5",
        "state = NULL",
        "size = 'many'",
    ],
)
def test_what_can_not_be_is_refused(ledger: Ledger, assignment: str) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        write(ledger.path, f"UPDATE files SET {assignment}")


def test_one_entry_of_a_path_at_most_is_unhashed(ledger: Ledger) -> None:
    columns = "path, inode, size, mtime_ns, ctime_ns, state, found_at, changed_at"
    statement = f"INSERT INTO files ({columns}) SELECT {columns} FROM files"
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        write(ledger.path, statement)


def test_one_entry_of_a_path_at_most_has_a_digest(ledger: Ledger) -> None:
    write(ledger.path, "UPDATE files SET algorithm = 'sha256', digest = zeroblob(32)")
    columns = "path, inode, size, mtime_ns, ctime_ns, algorithm, digest, state, found_at, changed_at"
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        write(ledger.path, f"INSERT INTO files ({columns}) SELECT {columns} FROM files")


def test_a_cause_that_is_over_is_not_kept(ledger: Ledger) -> None:
    move(ledger, "sending")
    move(ledger, "failed", cause="once")
    assert rows(ledger, "SELECT cause FROM totals WHERE cause <> ''") == [("once",)]
    move(ledger, "found")
    assert rows(ledger, "SELECT cause FROM totals WHERE cause <> ''") == []
