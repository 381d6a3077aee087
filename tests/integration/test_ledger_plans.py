"""Every statement that the ledger runs finds its rows by an index, however large the ledger is."""

import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import Failure
from common.ledger import claim, finish, landing, merge, origins, pace, record, resume, story, totals
from common.ledger import ledger as ledger_module
from common.ledger import reader as reader_module
from common.ledger.ledger import Ledger
from common.ledger.reader import LedgerReader
from common.ledger.rows import Origin, Receipt
from handoff.lifecycle import HOLD, LIFECYCLE, SEND
from tests.ledgers import (
    NOW,
    UNREACHABLE,
    bring,
    carry,
    checksum,
    done,
    failed,
    found,
    manager,
    take,
    write,
)

SMALL = (
    "totals|steps|moves|meta|manager|json_each|CONSTANT ROW|batches USING INDEX batches_open"
    "|files USING INDEX files_waiting(_in_trouble)?$"
)
"""What may be scanned: tables that stay small, lists of the caller's, the batches in flight, and those
indexes of which the first row is all that is asked for."""


def use_every_verb(ledger: Ledger) -> None:
    """A history that runs every statement of the writer."""
    ledger.choose_algorithm("sha256")
    ledger.note_mount_points({b"/data": b"/"})
    ledger.note_catalogue("/data/catalogue.db")
    ledger.record([found(b"%d" % number) for number in range(20)], now_ms=NOW)
    batch = take(ledger, limit=8, newest_first=True, bulky=False)
    a, b, c, d, e, *_ = batch.entries
    outcomes = done(a, "delivered", "0"), failed(b), failed(c, UNREACHABLE), done(d, "vanished")
    ledger.progress(batch.id, phase="send", progress_bytes=1)
    bring(ledger, batch, *outcomes, done(e, "conflict", "4"))
    bring(ledger, take(ledger, HOLD), done(a, "held"))
    ledger.record([found(a.path, "0", inode=8), found(c.path, size=5), found(d.path)], now_ms=NOW)
    ledger.record([found(e.path, "4", inode=9), found(c.path, "2")], now_ms=NOW)
    ledger.reschedule(5)
    ledger.bring_forward(NOW)
    assert ledger.next_due(SEND) is not None
    ledger.once_more(SEND, "not readable", reason="why", now_ms=NOW)
    take(ledger, now_ms=NOW + 60_000)
    ledger.rescue(now_ms=NOW)
    batch = take(ledger, limit=1)
    ledger.has_passed_since(SEND, replace(batch.entries[0], attempts=1))
    bring(ledger, batch, failed(batch.entries[0]))
    ledger.retry(paths=[b"1", b"d"], states=("failed", "conflict"), now_ms=NOW)
    ledger.retry(cause="x", now_ms=NOW)
    ledger.retry(now_ms=NOW)
    ledger.vanish([1], reason="gone", now_ms=NOW)
    ledger.receipts([Receipt(a.path, checksum("0"), "stored", NOW)])
    ledger.keep_origins([Origin(a.path, 10, checksum("0"), b"batch-1", NOW)])
    ledger.origins([a.path])
    # Only where it is known already may an entry be told to begin in a state that none begins in.
    known = ledger.versions([a.path])[a.path][0]
    ledger.backfill("held", [replace(found(a.path), checksum=known.checksum)], now_ms=NOW)
    ledger.beat(manager())
    ledger.totals()
    ledger.tend()

    for number, failure in enumerate((None, UNREACHABLE)):
        merge_one(ledger, b"again %d" % number, failure)


def merge_one(ledger: Ledger, path: bytes, failure: Failure | None) -> None:
    """Let an entry turn out to be a version that was held."""
    ledger.vanish(range(1, 99), reason="gone", now_ms=NOW)
    ledger.record([found(path)], now_ms=NOW)
    carry(ledger, "light")
    columns = "path, inode, size, mtime_ns, ctime_ns, state, found_at, changed_at"
    write(ledger.path, f"INSERT INTO files ({columns}) VALUES (?, 8, 1, 1, 1, 'found', 1, 1)", path)
    batch = take(ledger)
    entry = batch.entries[0]
    bring(ledger, batch, failed(entry, failure, "light") if failure else done(entry, "delivered", "light"))


def ask_every_question(reader: LedgerReader) -> None:
    """Questions that run every statement of the reader."""
    reader.totals()
    reader.waits()
    reader.rates("delivered", now_ms=NOW)
    reader.failures()
    for group in reader.failures():
        reader.in_trouble(group.state, group.cause)
    assert reader.knows_below(b"again") is False
    reader.carrying()
    reader.manager()
    reader.history(b"again 0")


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A ledger, and every statement that was run on it, those of triggers included."""
    path = tmp_path_factory.mktemp("plans") / "handoff.db"
    run = list[str]()
    with Ledger.open(path, LIFECYCLE, trace=run.append) as ledger:
        run.clear()
        use_every_verb(ledger)
        ledger.record([found(b"trouble")], now_ms=NOW)
        batch = take(ledger)
        bring(ledger, batch, *[failed(entry) for entry in batch.entries])
        with LedgerReader.open(path, trace=run.append) as reader:
            ask_every_question(reader)
    return path, {
        re.sub(r"^-- |\b(NEW|OLD)\.\w+", lambda found: "1" * (found[0] != "-- "), sql) for sql in run
    }


def constants() -> list[tuple[str, str]]:
    """The statements, and parts of statements, that the ledger's modules hold."""
    modules = (
        claim,
        finish,
        landing,
        ledger_module,
        merge,
        origins,
        pace,
        reader_module,
        record,
        resume,
        story,
        totals,
    )
    return [
        (f"{module.__name__}.{name}", value)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, str)
        and re.search(r"^\s+(SELECT|INSERT|UPDATE|DELETE|FROM|WHERE|\w+ = \?)", value, re.M)
    ]


@pytest.mark.parametrize(("name", "text"), constants(), ids=[name for name, _ in constants()])
def test_every_statement_of_the_ledger_is_looked_at_here(
    used: tuple[Path, set[str]], name: str, text: str
) -> None:
    pattern = re.sub(r"\\\?|(?<!\w):\w+|\\\{\w+\\\}", r"[^;]+?", re.escape(text.strip()))
    assert any(re.search(pattern, statement) for statement in used[1]), name


def test_every_statement_finds_its_rows_by_an_index(used: tuple[Path, set[str]]) -> None:
    path, run = used
    connection = sqlite3.connect(path)
    scans = []
    for statement in run:
        if statement.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
            for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
                if re.match(f"SCAN (?!{SMALL})", step):
                    scans.append((step, statement))
    connection.close()
    assert scans == []


def test_every_ordered_choice_is_read_in_the_order_of_an_index(used: tuple[Path, set[str]]) -> None:
    path, run = used
    connection = sqlite3.connect(path)
    choices = [sql for sql in run if re.search(r"FROM files\b.*ORDER BY.*LIMIT", sql, re.S)]
    sorted_ = [
        sql
        for sql in choices
        if any("TEMP B-TREE" in row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}"))
    ]
    connection.close()
    assert (sorted_, len(choices) > 5) == ([], True)
