"""The verbs that bring entries back to work, or take them out of it; and those that set times."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from common.entry import Entry
from common.ledger.rows import FAILED, VANISHED
from common.ledger.states import States
from common.lifecycle import Step

_RESCUE = """
    UPDATE files
    SET state = :source,
        batch_id = NULL,
        step = iif(attempts > 0, :working, NULL),
        due_at = iif(attempts > 0, 0, NULL),
        reason = :reason,
        changed_at = :now
    WHERE state = :working
        AND settled = 0
"""

_CLOSE_ALL = """
    UPDATE batches
    SET finished_at = ?,
        error = ?
    WHERE finished_at IS NULL
"""

_VANISH = """
    UPDATE files
    SET state = :vanished,
        settled = 1,
        step = NULL,
        attempts = 0,
        claims = 0,
        due_at = NULL,
        cause = '',
        reason = :reason,
        changed_at = :now
    WHERE id IN (SELECT value FROM json_each(:ids))
        AND batch_id IS NULL
        AND EXISTS (
            SELECT 1
            FROM moves
            WHERE moves.source = files.state
                AND moves.target = :vanished
        )
"""

# An exact path is found by its own index; the `+` keeps a directory, which may hold millions of files
# that are well, from being looked through instead of the few that are in trouble.
_AT = """
    SELECT id
    FROM files
    WHERE path = :path
        AND state = :state
        AND cause <> ''
        AND instr(lower(cause), lower(:cause)) > 0
    LIMIT :limit
"""

_BELOW = """
    SELECT id
    FROM files
    WHERE state = :state
        AND cause <> ''
        AND instr(lower(cause), lower(:cause)) > 0
        AND +path >= :first
        AND +path < :end
    LIMIT :limit
"""

_ANYWHERE = """
    SELECT id
    FROM files
    WHERE state = :state
        AND cause <> ''
        AND instr(lower(cause), lower(:cause)) > 0
    LIMIT :limit
"""

_RETRY = """
    UPDATE files
    SET state = ifnull((SELECT source FROM steps WHERE working = files.step), :first),
        settled = 0,
        step = NULL,
        attempts = 0,
        due_at = NULL,
        cause = '',
        reason = 'somebody asked for another try',
        changed_at = :now
    WHERE id IN (SELECT value FROM json_each(:ids))
"""

# Its attempts stay, so that it is known to be the last of them.
_ONCE_MORE = """
    UPDATE files
    SET state = :source,
        due_at = :now,
        cause = '',
        reason = :reason,
        changed_at = :now
    WHERE id = (
        SELECT id
        FROM files
        WHERE state = :failed
            AND cause = :cause
            AND cause <> ''
            AND due_at IS NULL
            AND step = :working
        LIMIT 1
    )
    RETURNING path
"""

# The last failures in its history are those that its attempts count.
_HAS_PASSED_SINCE = """
    SELECT EXISTS (
        SELECT 1
        FROM pace
        WHERE state = :target
            AND second > (
                SELECT at / 1000
                FROM history
                WHERE file_id = :id
                    AND target = :failed
                ORDER BY seq DESC
                LIMIT 1 OFFSET :attempts - 1
            )
    )
"""

_NEXT_DUE = """
    SELECT min(due_at)
    FROM files
    WHERE step = ?
        AND due_at IS NOT NULL
"""

# What is due whatever the clock says stays so.
_RESCHEDULE = """
    UPDATE files
    SET due_at = max(1, due_at + :by)
    WHERE step = :working
        AND due_at > 0
"""


_BRING_FORWARD = """
    UPDATE files
    SET due_at = :latest
    WHERE step = :working
        AND due_at > :latest
"""


def rescue(connection: sqlite3.Connection, states: States, now_ms: int) -> int:
    """Put everything in flight back to where work on it resumes, within the caller's transaction."""
    reason = "taken back: its manager ended"
    connection.execute(_CLOSE_ALL, (now_ms, reason))
    return sum(
        connection.execute(
            _RESCUE, {"source": step.source, "working": step.working, "reason": reason, "now": now_ms}
        ).rowcount
        for step in states.steps.values()
    )


def vanish(connection: sqlite3.Connection, ids: Sequence[int], reason: str, now_ms: int) -> int:
    """Settle entries whose content is gone, where their states allow it, within the caller's transaction."""
    values = {"vanished": VANISHED, "reason": reason, "now": now_ms, "ids": json.dumps(list(ids))}
    return connection.execute(_VANISH, values).rowcount


@dataclass(frozen=True, slots=True)
class Trouble:
    """Which entries in trouble are meant."""

    state: str
    cause: str
    """Any part of it, in upper or lower case."""
    path: bytes | None
    """A file, or a directory with all below it; empty or None: anywhere."""


def retry(connection: sqlite3.Connection, states: States, trouble: Trouble, limit: int, now_ms: int) -> int:
    """Make up to `limit` entries eligible at once, within the caller's transaction; returns how many."""
    about: dict[str, str | bytes | int] = {"state": trouble.state, "cause": trouble.cause, "limit": limit}
    if not trouble.path:
        ids = [row[0] for row in connection.execute(_ANYWHERE, about)]
    else:
        path = trouble.path.rstrip(b"/")
        # In the order of bytes, "0" follows "/".
        about |= {"path": path, "first": path + b"/", "end": path + b"0"}
        ids = [row[0] for query in (_AT, _BELOW) for row in connection.execute(query, about)][:limit]
    if ids:
        connection.execute(_RETRY, {"first": states.first.source, "now": now_ms, "ids": json.dumps(ids)})
    return len(ids)


def once_more(
    connection: sqlite3.Connection, step: Step, cause: str, reason: str, now_ms: int
) -> bytes | None:
    """Let one that failed in a step for that cause, and is spent, be due; returns its path."""
    values = {"failed": FAILED, "cause": cause, "working": step.working}
    change = {"source": step.source, "reason": reason, "now": now_ms}
    row = connection.execute(_ONCE_MORE, values | change).fetchone()
    return None if row is None else bytes(row[0])


def has_passed_since(connection: sqlite3.Connection, step: Step, entry: Entry) -> bool:
    """Whether any file went through a step in a second after that in which this one first failed in it."""
    if not entry.attempts:
        return False
    values = {"target": step.target, "id": entry.id, "failed": FAILED, "attempts": entry.attempts}
    return bool(connection.execute(_HAS_PASSED_SINCE, values).fetchone()[0])


def next_due(connection: sqlite3.Connection, step: Step) -> int | None:
    """When the first entry that failed in this step is to be tried again."""
    due: int | None = connection.execute(_NEXT_DUE, (step.working,)).fetchone()[0]
    return due


def reschedule(connection: sqlite3.Connection, states: States, by_ms: int) -> int:
    """Shift the times of all next tries, within the caller's transaction; returns how many."""
    return sum(
        connection.execute(_RESCHEDULE, {"working": working, "by": by_ms}).rowcount
        for working in states.steps
    )


def bring_forward(connection: sqlite3.Connection, states: States, latest: int) -> int:
    """Let no next try be later than that, within the caller's transaction; returns how many would be."""
    return sum(
        connection.execute(_BRING_FORWARD, {"working": working, "latest": latest}).rowcount
        for working in states.steps
    )
