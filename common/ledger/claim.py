"""The verb that hands work out: a batch of entries for one worker and one step."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice

from common.entry import Batch, Entry
from common.files import Algorithm
from common.ledger.columns import Stored, checksum_of, fence_of
from common.lifecycle import Step

_ENTRY = """
    SELECT
        mtime_ns,
        id,
        path,
        inode,
        size,
        ctime_ns,
        algorithm,
        digest,
        attempts,
        claims
    FROM files
"""

_DUE = f"""
    {_ENTRY}
    WHERE step = :working
        AND due_at <= :now
        AND bulky BETWEEN :least AND :most
    ORDER BY due_at
    LIMIT :limit
"""

_READY = f"""
    {_ENTRY}
    WHERE state = :source
        AND settled = 0
        AND bulky = :bulky
        AND due_at IS NULL
    ORDER BY mtime_ns {{order}}
    LIMIT :limit
"""

_OPEN = """
    INSERT INTO batches (step, worker, started_at, files, bytes, example)
    VALUES (?, ?, ?, ?, ?, ?)
    RETURNING id
"""

_TAKE_READY = """
    UPDATE files
    SET state = :working,
        batch_id = :batch,
        claims = claims + 1,
        reason = '',
        changed_at = :now
    WHERE id IN (SELECT value FROM json_each(:ids))
        AND batch_id IS NULL
"""

_TAKE_DUE = """
    UPDATE files
    SET state = :working,
        batch_id = :batch,
        claims = claims + 1,
        due_at = NULL,
        cause = '',
        reason = '',
        changed_at = :now
    WHERE id IN (SELECT value FROM json_each(:ids))
        AND batch_id IS NULL
"""

_Row = tuple[Stored, int, bytes, Stored, int, Stored, Algorithm | None, bytes | None, int, int]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a worker would take."""

    step: Step
    limit: int
    """Entries at most."""
    max_bytes: int
    """Bytes at most, but one entry at least."""
    newest_first: bool
    bulky: bool | None
    """Only files that are, or are not; None: any."""
    worker: int
    skip: int
    """So many that are ready are passed over."""


def claim(connection: sqlite3.Connection, wish: Wish, now_ms: int) -> Batch | None:
    """Take entries into a step, within the caller's transaction."""
    take = _TAKE_DUE
    rows = _fitting(_due(connection, wish, now_ms), wish.max_bytes)
    if not rows:
        take = _TAKE_READY
        rows = _fitting(_ready(connection, wish), wish.max_bytes)
    if not rows:
        return None
    working = wish.step.working
    size = sum(row[4] for row in rows)
    opened = (working, wish.worker, now_ms, len(rows), size, rows[0][2])
    batch: int = connection.execute(_OPEN, opened).fetchone()[0]
    ids = json.dumps([row[1] for row in rows])
    connection.execute(take, {"working": working, "batch": batch, "now": now_ms, "ids": ids})
    return Batch(batch, wish.step, tuple(_entry(row, working) for row in rows))


def _due(connection: sqlite3.Connection, wish: Wish, now_ms: int) -> Iterator[_Row]:
    least, most = (0, 1) if wish.bulky is None else (wish.bulky, wish.bulky)
    return connection.execute(
        _DUE,
        {"working": wish.step.working, "now": now_ms, "least": least, "most": most, "limit": wish.limit},
    )


def _ready(connection: sqlite3.Connection, wish: Wish) -> Iterator[_Row]:
    """What is waiting, in order: the index orders bulky files and others apart, so that none is scanned."""
    query = _READY.format(order="DESC" if wish.newest_first else "ASC")
    kinds: Sequence[bool] = (False, True) if wish.bulky is None else (wish.bulky,)
    end = wish.skip + wish.limit
    cursors = [
        connection.execute(query, {"source": wish.step.source, "bulky": kind, "limit": end}) for kind in kinds
    ]
    yield from islice(merge(*cursors, key=_modified, reverse=wish.newest_first), wish.skip, end)


def _modified(row: _Row) -> tuple[bool, int]:
    """The order of SQLite, where numbers that have to be kept as text come last."""
    return (isinstance(row[0], str), int(row[0]))


def _fitting(rows: Iterator[_Row], max_bytes: int) -> list[_Row]:
    """As many of the first rows as fit, and at least one."""
    fitting: list[_Row] = []
    for row in rows:
        max_bytes -= row[4]
        if fitting and max_bytes < 0:
            break
        fitting.append(row)
    return fitting


def _entry(row: _Row, state: str) -> Entry:
    mtime_ns, entry, path, inode, size, ctime_ns, algorithm, digest, attempts, claims = row
    return Entry(
        id=entry,
        path=path,
        fence=fence_of(inode, size, mtime_ns, ctime_ns),
        checksum=checksum_of(algorithm, digest),
        state=state,
        attempts=attempts,
        claims=claims + 1,
    )
