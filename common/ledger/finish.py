"""The verb that writes what became of a batch, all its entries in one transaction."""

import json
import sqlite3
from collections.abc import Iterable, Mapping

from common.entry import Batch
from common.ledger.columns import by_path, checksum_columns
from common.ledger.landing import Landing, Verdict, land, landing_of
from common.ledger.merge import merge
from common.ledger.pace import keep_pace

_CLOSE = """
    UPDATE batches
    SET finished_at = ?,
        progress_bytes = ?,
        phases = ?,
        exit_code = ?,
        error = ?
    WHERE id = ?
        AND finished_at IS NULL
"""

_VERSIONS_WITH_DIGEST = """
    SELECT
        path,
        digest,
        id
    FROM files
    WHERE path IN ({paths})
        AND digest IS NOT NULL
"""


def finish(connection: sqlite3.Connection, verdict: Verdict) -> int:
    """Land every entry of a batch, within the caller's transaction; returns how many moved."""
    if not _close(connection, verdict):
        return 0
    batch = verdict.batch
    outcomes = {outcome.entry_id: outcome for outcome in verdict.report.outcomes}
    landings = {entry.id: landing_of(entry, outcomes.get(entry.id), verdict) for entry in batch.entries}
    twins = _twins(connection, batch, landings)
    alone = {entry: landing for entry, landing in landings.items() if entry not in twins}
    moved = land(connection, batch.id, alone, verdict.now_ms)
    for entry_id, twin_id in twins.items():
        merge(connection, verdict, entry_id, twin_id, landings[entry_id])
    _keep_pace(connection, verdict, landings.values())
    return moved + len(twins)


def _close(connection: sqlite3.Connection, verdict: Verdict) -> bool:
    """Close the batch; false if it has been already (by `rescue`, say)."""
    report = verdict.report
    values = (
        verdict.now_ms,
        report.bytes,
        json.dumps(dict(report.phases)),
        report.exit_code,
        report.error,
        verdict.batch.id,
    )
    return connection.execute(_CLOSE, values).rowcount == 1


def _twins(connection: sqlite3.Connection, batch: Batch, landings: Mapping[int, Landing]) -> dict[int, int]:
    """By entry: the id under which the version is known already that it turned out to be."""
    learned = [entry for entry in batch.entries if landings[entry.id].checksum]
    paths = [entry.path for entry in learned]
    known = {
        (path, digest): entry_id
        for path, digest, entry_id in by_path(connection, _VERSIONS_WITH_DIGEST, paths)
    }
    if not known:
        return {}
    digests = {entry: checksum_columns(landings[entry.id].checksum)[1] for entry in learned}
    return {
        entry.id: known[entry.path, digest]
        for entry, digest in digests.items()
        if (entry.path, digest) in known
    }


def _keep_pace(connection: sqlite3.Connection, verdict: Verdict, landings: Iterable[Landing]) -> None:
    """Count what went the way of its step."""
    target = verdict.batch.step.target
    sizes = [landing.fence.size for landing in landings if landing.state == target]
    if sizes:
        keep_pace(connection, target, len(sizes), sum(sizes), verdict.now_ms)
