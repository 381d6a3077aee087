"""A ledger in trouble: killed at any instant, its disk full, its readers slow."""

import os
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from common.entry import Batch, Entry
from common.ledger.faults import LedgerFull
from common.ledger.ledger import Ledger
from common.ledger.reader import LedgerReader
from handoff.lifecycle import LIFECYCLE, SEND
from tests.apart import apart, mount, own_namespaces
from tests.ledgers import (
    NOW,
    assert_sound,
    bring,
    done,
    dump,
    failed,
    found,
    manager,
    open_ledger,
    states,
    take,
)

Verb = Callable[[Ledger], object]


def prepare(directory: Path) -> None:
    """A ledger with one file waiting, one in flight and one failed."""
    with open_ledger(directory) as ledger:
        for name in (b"failed", b"in flight", b"waiting"):
            ledger.record([found(name)], now_ms=NOW)
            if name != b"waiting":
                batch = take(ledger)
            if name == b"failed":
                bring(ledger, batch, failed(batch.entries[0]))


def record(ledger: Ledger) -> object:
    return ledger.record([found(b"%d" % number) for number in range(100)], now_ms=NOW)


def claim(ledger: Ledger) -> object:
    return take(ledger)


def claim_due(ledger: Ledger) -> object:
    return take(ledger, now_ms=NOW + 60_000)


def finish(ledger: Ledger) -> object:
    entry = Entry(2, b"in flight", found().fence, None, "sending", attempts=0, claims=1)
    return bring(ledger, Batch(2, SEND, (entry,)), done(entry, "delivered", "light"))


def rescue(ledger: Ledger) -> object:
    return ledger.rescue(now_ms=NOW)


def retry(ledger: Ledger) -> object:
    return ledger.retry(now_ms=NOW)


def vanish(ledger: Ledger) -> object:
    return ledger.vanish([1, 3], reason="gone", now_ms=NOW)


def work_until(path: Path, verb: Verb, statement: str, line: Connection) -> None:
    """Work, and stop for ever where a statement with these words is about to run."""

    def stop(running: str) -> None:
        if statement in running:
            line.send("here")
            time.sleep(600)

    with Ledger.open(path, LIFECYCLE, trace=stop) as ledger:
        verb(ledger)


def kill_at(path: Path, verb: Verb, statement: str) -> None:
    """Kill a process that works, with SIGKILL, at a statement with these words."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work_until, args=(path, verb, statement, theirs))
    process.start()
    theirs.close()
    try:
        assert ours.recv() == "here"
    finally:
        process.kill()
        process.join()
        ours.close()


@pytest.mark.parametrize(
    ("verb", "statement"),
    [
        (record, "INSERT INTO files"),
        (record, "INSERT INTO pace"),
        (record, "COMMIT"),
        (claim, "UPDATE files"),
        (claim, "COMMIT"),
        (claim_due, "COMMIT"),
        (finish, "UPDATE batches"),
        (finish, "UPDATE files"),
        (finish, "COMMIT"),
        (rescue, "COMMIT"),
        (retry, "COMMIT"),
        (vanish, "COMMIT"),
    ],
)
def test_a_kill_in_a_transaction_leaves_the_state_before_it(
    tmp_path: Path, verb: Verb, statement: str
) -> None:
    prepare(tmp_path)
    before = dump(tmp_path / "handoff.db")
    kill_at(tmp_path / "handoff.db", verb, statement)
    with LedgerReader.open(tmp_path / "handoff.db") as reader:
        assert {total.state for total in reader.totals()} == {"failed", "sending", "found"}
    with open_ledger(tmp_path) as ledger:
        assert_sound(ledger)
    assert dump(tmp_path / "handoff.db") == before


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE files", "PRAGMA user_version = ", "COMMIT", "PRAGMA synchronous"]
)
def test_a_kill_while_it_is_made_leaves_nothing_that_bars_the_next_start(
    tmp_path: Path, statement: str
) -> None:
    kill_at(tmp_path / "handoff.db", record, statement)
    with open_ledger(tmp_path) as ledger:
        assert ledger.totals() == ()


def enter_until_full(ledger: Ledger) -> int:
    """Enter files until it raises; returns how many."""
    entered = 0
    try:
        while True:
            entered += ledger.record([found(b"%d" % (entered + n)) for n in range(500)], now_ms=NOW).added
    except LedgerFull:
        return entered


def fill_up(directory: Path) -> tuple[int, int, str] | None:
    """Files entered on a full disk, files kept, and what becomes of the next when there is room again.

    None where no small disk can be had.
    """
    if not own_namespaces() or not mount("tmpfs", directory, "size=8m"):
        return None
    (directory / "ballast").write_bytes(bytes(6_000_000))
    with open_ledger(directory) as ledger:
        entered = enter_until_full(ledger)
        kept = len(states(ledger))
        (directory / "ballast").unlink()
        ledger.tend()
        ledger.record([found(b"after")], now_ms=NOW)
        assert_sound(ledger)
        return entered, kept, states(ledger)[b"after"]


def test_a_full_disk_rolls_back_and_is_over_when_there_is_room(tmp_path: Path) -> None:
    told = apart(fill_up, tmp_path)
    if told is not None:
        entered, kept, after = told
        assert 0 < entered == kept
        assert after == "found"


def log_size(ledger: Ledger) -> int:
    return os.stat(f"{ledger.path}-wal").st_size


def test_a_slow_reader_holds_nobody_up_and_sees_one_instant(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([found(b"first")], now_ms=NOW)
        with LedgerReader.open(ledger.path) as reader, reader.snapshot():
            assert [total.files for total in reader.totals()] == [1]
            ledger.record([found(b"second")], now_ms=NOW)
            assert [total.files for total in reader.totals()] == [1]
        with LedgerReader.open(ledger.path) as reader:
            assert [total.files for total in reader.totals()] == [2]


def test_the_log_that_a_slow_reader_let_grow_is_written_over_afterwards(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([found()], now_ms=NOW)
        with LedgerReader.open(ledger.path) as reader, reader.snapshot():
            reader.totals()
            for number in range(3000):
                ledger.beat(manager(heartbeat_at=NOW + number))
            ledger.tend()
            grown = log_size(ledger)
        ledger.tend()
        for number in range(3000):
            ledger.beat(manager(heartbeat_at=NOW + number))
        assert log_size(ledger) == grown


def visit(directory: Path, name: bytes) -> set[bytes]:
    """Enter a file as another process would, and close the ledger; returns all that are in it."""
    with open_ledger(directory) as ledger:
        ledger.record([found(name)], now_ms=NOW)
        return set(states(ledger))


def test_reading_it_in_the_managers_own_process_does_not_cost_the_manager_its_locks(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([found(b"first")], now_ms=NOW)
        LedgerReader.open(ledger.path).close()
        open_ledger(tmp_path).close()
        # Would fold up the log beneath the manager if it took itself for the last one to close it.
        assert apart(visit, tmp_path, b"second") == {b"first", b"second"}
        assert os.path.exists(f"{ledger.path}-wal")
        ledger.record([found(b"third")], now_ms=NOW)
        assert apart(visit, tmp_path, b"fourth") == {b"first", b"second", b"third", b"fourth"}
