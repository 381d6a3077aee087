"""Where an entry goes after its batch, and the statement that takes it there."""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from common.entry import Batch, Done, Entry, Outcome, Report
from common.errors import Failure, Scope
from common.files import Checksum, Fence
from common.ledger.columns import checksum_columns, fence_columns
from common.ledger.rows import FAILED, VANISHED
from common.ledger.states import States

Backoff = Callable[[int], float | None]
"""From the attempts so far to the seconds to wait; None once they are spent."""

_LAND = """
    UPDATE files
    SET state = ?,
        step = ?,
        attempts = ?,
        claims = ?,
        due_at = ?,
        reason = ?,
        inode = ?,
        size = ?,
        mtime_ns = ?,
        ctime_ns = ?,
        changed_at = ?,
        batch_id = NULL
"""

# Set apart, because each of them is in an index that most outcomes need not touch.
_OF_INTEREST = """,
        settled = ?,
        cause = ?
"""
_IDENTIFIED = """,
        algorithm = ?,
        digest = ?
"""

_IF_IN_BATCH = """
    WHERE id = ?
        AND batch_id = ?
"""


@dataclass(frozen=True, slots=True)
class Landing:
    """Where an entry goes, and with what."""

    state: str
    settled: bool
    fence: Fence
    checksum: Checksum | None = None
    """Only where it was not known before."""
    step: str | None = None
    attempts: int = 0
    claims: int = 0
    due_at: int | None = None
    cause: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A batch that came back, and what decides where its entries go."""

    states: States
    batch: Batch
    report: Report
    backoff: Backoff
    now_ms: int


def landing_of(entry: Entry, outcome: Outcome | None, verdict: Verdict) -> Landing:
    """Where an outcome takes an entry."""
    if outcome is None:
        return _back(entry, verdict, verdict.report.error)
    if entry.checksum and outcome.checksum and outcome.checksum != entry.checksum:
        return _replaced(entry, entry.checksum, outcome.checksum, verdict)
    learned = outcome.checksum if entry.checksum is None else None
    fence = outcome.fence or entry.fence
    if isinstance(outcome, Done):
        in_trouble = outcome.state in verdict.states.trouble
        return Landing(
            state=outcome.state,
            settled=outcome.state not in verdict.states.unsettled,
            fence=fence,
            checksum=learned,
            # Where `retry` takes it up again.
            step=verdict.batch.step.working if in_trouble else None,
            cause=outcome.state if in_trouble else "",
            reason=outcome.reason,
        )
    if outcome.failure.scope is not Scope.FILE:
        return replace(_back(entry, verdict, outcome.failure.reason), fence=fence, checksum=learned)
    return replace(_failed(entry, outcome.failure, verdict), fence=fence, checksum=learned)


def _back(entry: Entry, verdict: Verdict, reason: str) -> Landing:
    """Back to where the step begins: nobody has found fault with the file itself.

    One that failed before keeps riding alone: it is due at once, whatever the clock says.
    """
    step = verdict.batch.step
    return Landing(
        state=step.source,
        settled=False,
        fence=entry.fence,
        step=step.working if entry.attempts else None,
        attempts=entry.attempts,
        claims=entry.claims,
        due_at=0 if entry.attempts else None,
        reason=reason,
    )


def _failed(entry: Entry, failure: Failure, verdict: Verdict) -> Landing:
    """One attempt more; it waits for the next one, or for a person."""
    attempts = entry.attempts + 1
    wait = verdict.backoff(attempts) if failure.transient else None
    return Landing(
        state=FAILED,
        settled=False,
        fence=entry.fence,
        step=verdict.batch.step.working,
        attempts=attempts,
        claims=entry.claims,
        due_at=None if wait is None else verdict.now_ms + round(wait * 1000),
        cause=failure.cause or FAILED,
        reason=failure.reason,
    )


def _replaced(entry: Entry, known: Checksum, found: Checksum, verdict: Verdict) -> Landing:
    """An entry is a version, and keeps its digest; that content is gone, and the next scan finds the new.

    So it does where the content is the same, and somebody wants another kind of digest of it.
    """
    reason = "another version has taken its place"
    if found.algorithm != known.algorithm:
        reason = f"goes on as another entry, with its digest by {found.algorithm}"
    if (verdict.batch.step.working, VANISHED) not in verdict.states.moves:
        return _back(entry, verdict, reason)
    return Landing(VANISHED, settled=True, fence=entry.fence, reason=reason)


def land(connection: sqlite3.Connection, batch_id: int, landings: Mapping[int, Landing], now_ms: int) -> int:
    """Move entries out of a batch; those that are no longer in it stay where they are."""
    rows: defaultdict[str, list[tuple[object, ...]]] = defaultdict(list)
    for entry_id, landing in landings.items():
        query = _LAND
        values: tuple[object, ...] = (
            landing.state,
            landing.step,
            landing.attempts,
            landing.claims,
            landing.due_at,
            landing.reason,
            *fence_columns(landing.fence),
            now_ms,
        )
        if landing.settled or landing.cause:
            query += _OF_INTEREST
            values += (landing.settled, landing.cause)
        if landing.checksum:
            query += _IDENTIFIED
            values += checksum_columns(landing.checksum)
        rows[query].append((*values, entry_id, batch_id))
    return sum(connection.executemany(query + _IF_IN_BATCH, some).rowcount for query, some in rows.items())
