"""Ledgers for tests: found files, outcomes and checksums to put in, and a look at the bare tables."""

import hashlib
import sqlite3
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.entry import Batch, Done, Entry, Failed, Outcome, Report
from common.errors import Failure, Scope
from common.files import Checksum, Fence
from common.ledger.ledger import Ledger
from common.ledger.rows import Found, ManagerRow
from common.lifecycle import Step
from handoff.lifecycle import HOLD, LIFECYCLE, SEND

NOW = 1_700_000_000_000
UNREADABLE = Failure(Scope.FILE, "not readable", "a.fits: permission denied", "Give the right to read it.")
UNREACHABLE = Failure(Scope.CONNECTION, "unreachable", "archive: no route to host")


def open_ledger(directory: Path) -> Ledger:
    """The ledger of a handoff manager; made when it isn't there."""
    return Ledger.open(directory / "handoff.db", LIFECYCLE)


def checksum(content: str) -> Checksum:
    """The checksum of a file of that content."""
    return Checksum("sha256", hashlib.sha256(content.encode()).hexdigest())


def found(path: bytes = b"a.fits", content: str | None = None, **changes: Any) -> Found:
    """A found file; hashed if its content is given."""
    fence = {"inode": 7, "size": 10, "mtime_ns": NOW * 10**6, "ctime_ns": NOW * 10**6} | changes
    bulky = bool(fence.pop("bulky", False))
    return Found(path, Fence(**fence), checksum(content) if content is not None else None, bulky=bulky)


def take(ledger: Ledger, step: Step = SEND, now_ms: int = NOW, **wish: Any) -> Batch:
    """Claim what must be there to be claimed."""
    batch = ledger.claim(step, **{"limit": 500, "max_bytes": 10**9, "worker": 0, "now_ms": now_ms} | wish)
    assert batch is not None
    return batch


def bring(ledger: Ledger, batch: Batch, *outcomes: Outcome, now_ms: int = NOW, error: str = "") -> int:
    """Finish a batch; attempts back off by ten seconds each, and the third is the last."""
    backoff = {1: 10.0, 2: 20.0}.get
    return ledger.finish(batch, Report(outcomes, {"send": 0.5}, 10, 0, error), backoff=backoff, now_ms=now_ms)


def done(entry: Entry, state: str, content: str | None = None, reason: str = "") -> Done:
    """An entry that went its way."""
    return Done(entry.id, state, checksum(content) if content is not None else None, None, reason)


def failed(entry: Entry, failure: Failure = UNREADABLE, content: str | None = None) -> Failed:
    """An entry that did not."""
    return Failed(entry.id, failure, checksum(content) if content is not None else None)


def carry(ledger: Ledger, content: str, *, until: str = "held", now_ms: int = NOW) -> None:
    """Take all that waits, of one content, on its way until a state."""
    for step in (SEND, HOLD):
        batch = take(ledger, step, now_ms=now_ms)
        if step.working == until:
            return
        bring(ledger, batch, *[done(entry, step.target, content) for entry in batch.entries], now_ms=now_ms)
        if step.target == until:
            return


def rows(ledger: Ledger, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What is in the bare tables, by a connection of its own."""
    connection = sqlite3.connect(ledger.path)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def write(path: Path, statement: str, *values: object) -> None:
    """Change the bare tables, as somebody with a shell might."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            connection.execute(statement, values)
    finally:
        connection.close()


def dump(path: Path) -> list[str]:
    """A whole database as statements."""
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def manager(**changes: Any) -> ManagerRow:
    """What a manager says of itself."""
    row = ManagerRow(pid=42, host="summit", version="1", started_at=NOW, heartbeat_at=NOW)
    return replace(row, **changes)


def states(ledger: Ledger) -> dict[bytes, str]:
    """The state of the newest version of each path."""
    return dict(rows(ledger, "SELECT path, state FROM files ORDER BY id"))


def moves(ledger: Ledger, entry_id: int) -> list[str]:
    """The states that an entry has gone through."""
    query = "SELECT target FROM history WHERE file_id = ? ORDER BY seq"
    return [target for (target,) in rows(ledger, query, entry_id)]


def assert_sound(ledger: Ledger) -> None:
    """Assert that totals are true, and each history leads from the beginning to the present state."""
    counted = Counter[tuple[str, str]]()
    size = Counter[tuple[str, str]]()
    for state, cause, nbytes in rows(ledger, "SELECT state, cause, size FROM files"):
        counted[state, cause] += 1
        size[state, cause] += nbytes
    told = {(total.state, total.cause): (total.files, total.bytes) for total in ledger.totals()}
    assert told == {key: (counted[key], size[key]) for key in counted}
    last = dict[int, str]()
    for entry, source, target in rows(
        ledger, "SELECT file_id, source, target FROM history ORDER BY file_id, seq"
    ):
        assert last.get(entry, "") == source
        last[entry] = target
    merged = {entry for (entry,) in rows(ledger, "SELECT file_id FROM merges")}
    assert last == dict(rows(ledger, "SELECT id, state FROM files")) | dict.fromkeys(merged, "")
