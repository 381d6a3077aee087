"""One path's whole story: its versions, how each of them moved, and the batches that they rode in."""

import json
import sqlite3
from heapq import merge

from common.ledger.columns import checksum_of, fence_of
from common.ledger.rows import Origin, Receipt, Ride, Transition, VersionStory

_VERSIONS = """
    SELECT
        id,
        path,
        inode,
        size,
        mtime_ns,
        ctime_ns,
        algorithm,
        digest,
        state,
        step,
        attempts,
        claims,
        due_at,
        cause,
        reason,
        bulky,
        found_at,
        changed_at
    FROM files
    WHERE path = ?
    ORDER BY id DESC
"""

_MERGED = """
    SELECT file_id
    FROM merges
    WHERE into_id = ?
"""

_TRANSITIONS = """
    SELECT
        at,
        source,
        target,
        batch_id,
        reason
    FROM history
    WHERE file_id = ?
    ORDER BY seq
"""

_RIDES = """
    SELECT
        id AS batch_id,
        step,
        worker,
        started_at,
        finished_at,
        files,
        bytes,
        phases,
        exit_code,
        error
    FROM batches
    WHERE id IN (SELECT value FROM json_each(?))
    ORDER BY id
"""

_RECEIPTS = """
    SELECT
        state,
        at
    FROM receipts
    WHERE file_id = ?
    ORDER BY at
"""

_ORIGIN = """
    SELECT
        note,
        sent_at
    FROM origins
    WHERE path = ?
        AND digest = ?
        AND algorithm = ?
"""


def stories(connection: sqlite3.Connection, path: bytes) -> tuple[VersionStory, ...]:
    """The versions of a path, newest first, by a connection whose rows are `sqlite3.Row`."""
    return tuple(_story(connection, row) for row in connection.execute(_VERSIONS, (path,)).fetchall())


def _story(connection: sqlite3.Connection, row: sqlite3.Row) -> VersionStory:
    fields = dict(row)
    fence = fence_of(*(fields.pop(name) for name in ("inode", "size", "mtime_ns", "ctime_ns")))
    checksum = checksum_of(fields.pop("algorithm"), fields.pop("digest"))
    transitions = _transitions(connection, row["id"])
    batches = {move.batch_id for move in transitions if move.batch_id is not None}
    receipts = connection.execute(_RECEIPTS, (row["id"],))
    return VersionStory(
        **fields | {"bulky": bool(row["bulky"])},
        fence=fence,
        checksum=checksum,
        transitions=transitions,
        rides=_rides(connection, batches),
        receipts=tuple(Receipt(row["path"], checksum, state, at) for state, at in receipts if checksum),
        origin=_origin(connection, row),
    )


def _origin(connection: sqlite3.Connection, row: sqlite3.Row) -> Origin | None:
    """Where the version comes from, in the words of a delivery note."""
    checksum = checksum_of(row["algorithm"], row["digest"])
    found = connection.execute(_ORIGIN, (row["path"], row["digest"], row["algorithm"])).fetchone()
    return Origin(row["path"], row["size"], checksum, *found) if checksum and found else None


def _transitions(connection: sqlite3.Connection, entry: int) -> tuple[Transition, ...]:
    """The moves of an entry and of those that were merged into it.

    Those of one entry stay in their order, even where the clock was set back between them.
    """
    merged = [merged for (merged,) in connection.execute(_MERGED, (entry,))]
    moves = [
        [Transition(*row) for row in connection.execute(_TRANSITIONS, (each,))] for each in (entry, *merged)
    ]
    return tuple(merge(*moves, key=lambda move: move.at))


def _rides(connection: sqlite3.Connection, batches: set[int]) -> tuple[Ride, ...]:
    rows = connection.execute(_RIDES, (json.dumps(sorted(batches)),))
    return tuple(Ride(**dict(row) | {"phases": json.loads(row["phases"])}) for row in rows)
