"""Two entries that turn out to be one version: the older one goes on, with both their histories."""

import sqlite3
from dataclasses import replace

from common.ledger.columns import fence_columns
from common.ledger.landing import Landing, Verdict, land
from common.ledger.rows import FAILED, VANISHED
from common.ledger.states import States
from common.lifecycle import Step

_FOUND_AT = """
    SELECT found_at
    FROM files
    WHERE id = ?
        AND batch_id = ?
"""

_TWIN = """
    SELECT
        state,
        batch_id
    FROM files
    WHERE id = ?
"""

_MERGE = """
    INSERT INTO merges (file_id, into_id)
    VALUES (?, ?)
"""

_EXPLAIN = """
    UPDATE files
    SET reason = ?,
        changed_at = ?
    WHERE id = ?
"""

_END = """
    DELETE FROM files
    WHERE id = ?
"""

_BEGIN_ANEW = """
    UPDATE files
    SET state = ?,
        settled = 0,
        step = NULL,
        attempts = 0,
        claims = 0,
        due_at = NULL,
        cause = '',
        reason = ?,
        found_at = ?,
        changed_at = ?
    WHERE id = ?
"""

_JOIN_BATCH = """
    UPDATE files
    SET state = ?,
        batch_id = ?,
        due_at = NULL,
        cause = '',
        reason = ?,
        changed_at = ?
    WHERE id = ?
"""

_RENEW = """
    UPDATE files
    SET inode = ?,
        size = ?,
        mtime_ns = ?,
        ctime_ns = ?
    WHERE id = ?
"""


def merge(
    connection: sqlite3.Connection, verdict: Verdict, entry_id: int, twin_id: int, landing: Landing
) -> bool:
    """End an entry, and let its twin, the older entry of the same version, go where it would have gone.

    The twin takes every step of that way, so that its moves are allowed ones and its history tells them.
    A twin that is in flight, or has been further already, stays where it is. False if the entry is no
    longer in the batch, which leaves both as they are.
    """
    batch, now_ms = verdict.batch, verdict.now_ms
    row = connection.execute(_FOUND_AT, (entry_id, batch.id)).fetchone()
    if row is None:
        return False
    state, in_flight = connection.execute(_TWIN, (twin_id,)).fetchone()
    connection.execute(_MERGE, (entry_id, twin_id))
    connection.execute(_EXPLAIN, (f"the same content as entry {twin_id}", now_ms, entry_id))
    connection.execute(_END, (entry_id,))
    if in_flight is not None or landing.state == VANISHED:
        return True
    reason = f"came again, as entry {entry_id}"
    way = _way(verdict.states, batch.step, state, landing.state)
    if batch.step.source in way:
        connection.execute(_BEGIN_ANEW, (batch.step.source, reason, row[0], now_ms, twin_id))
    if batch.step.working in way:
        connection.execute(_JOIN_BATCH, (batch.step.working, batch.id, reason, now_ms, twin_id))
        land(connection, batch.id, {twin_id: replace(landing, checksum=None)}, now_ms)
    else:
        connection.execute(_RENEW, (*fence_columns(landing.fence), twin_id))
    return True


def _way(states: States, step: Step, state: str, target: str) -> tuple[str, ...]:
    """The states that a twin goes through before it reaches the target, or to reach it; empty: it stays."""
    if state == target:
        return ()
    if target == step.source:
        return (step.source,) if state in states.again or state == FAILED else ()
    if (state, step.working) in states.moves:
        return (step.working,)
    if (state, step.source) in states.moves:
        return (step.source, step.working)
    return ()
