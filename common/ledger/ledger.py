"""The writing side of the ledger: the verbs by which entries come, are claimed, and move."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar, cast

from common.entry import Batch, Entry, Report
from common.errors import LedgerError
from common.files import Algorithm, Checksum
from common.ledger import claim, finish, origins, record, resume, schema
from common.ledger.columns import checksum_columns
from common.ledger.faults import LedgerBusy, LedgerFull, translated
from common.ledger.landing import Backoff, Verdict
from common.ledger.rows import FAILED, Found, ManagerRow, Origin, Receipt, Recorded, Total, Version
from common.ledger.states import States
from common.ledger.totals import totals
from common.lifecycle import Lifecycle, Step

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

_RETRY_PAGE = 2000
"""Entries that one transaction of `retry` moves, so that a running manager is not kept waiting."""

_CHOOSE_ALGORITHM = """
    INSERT INTO meta (key, value)
    VALUES ('algorithm', ?)
    ON CONFLICT DO NOTHING
"""

_NOTE = """
    INSERT INTO meta (key, value)
    VALUES (?, ?)
    ON CONFLICT (key) DO UPDATE SET
        value = excluded.value
"""

_BEAT = """
    INSERT INTO manager (
        id, pid, host, version, started_at, heartbeat_at,
        endpoint_state, endpoint_since, endpoint_reason, paused, disk
    )
    VALUES (
        1, :pid, :host, :version, :started_at, :heartbeat_at,
        :endpoint_state, :endpoint_since, :endpoint_reason, :paused, :disk
    )
    ON CONFLICT (id) DO UPDATE SET
        pid = excluded.pid,
        host = excluded.host,
        version = excluded.version,
        started_at = excluded.started_at,
        heartbeat_at = excluded.heartbeat_at,
        endpoint_state = excluded.endpoint_state,
        endpoint_since = excluded.endpoint_since,
        endpoint_reason = excluded.endpoint_reason,
        paused = excluded.paused,
        disk = excluded.disk
"""

_PROGRESS = """
    UPDATE batches
    SET phase = ?,
        progress_bytes = ?
    WHERE id = ?
        AND finished_at IS NULL
"""

_RECEIPT = """
    INSERT INTO receipts (file_id, state, at)
    SELECT
        id,
        ?,
        ?
    FROM files
    WHERE path = ?
        AND algorithm = ?
        AND digest = ?
    ON CONFLICT DO NOTHING
"""


def _patiently(
    verb: Callable[Concatenate["Ledger", Arguments], Answer],
) -> Callable[Concatenate["Ledger", Arguments], Answer]:
    """Let a verb that was rolled back, for want of the lock or of space, be tried again as a whole."""

    @wraps(verb)
    def persistently(self: "Ledger", /, *args: Arguments.args, **keywords: Arguments.kwargs) -> Answer:
        while True:
            try:
                return verb(self, *args, **keywords)
            except (LedgerBusy, LedgerFull) as error:
                if not self._patience(error):
                    raise

    return persistently


class Ledger:
    """The one writer. Each verb is one short transaction, and raises `LedgerError` where it can't be had.

    Times are milliseconds since the epoch and come from the caller.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        lifecycle: Lifecycle,
        patience: Callable[[LedgerError], bool],
    ) -> None:
        """Use `open`."""
        self._connection = connection
        self._states = States.of(lifecycle)
        self._patience = patience
        self._file = os.stat(path)
        self.path = path
        self.lifecycle = lifecycle
        meta = schema.read_meta(connection)
        self.id: str = meta["id"]
        """Sixteen hexadecimal digits, drawn when the ledger was created."""
        self._algorithm = cast(Algorithm | None, meta.get("algorithm"))
        points: dict[str, str] = json.loads(meta.get("mount_points", "{}"))
        self.mount_points = {os.fsencode(path): os.fsencode(point) for path, point in points.items()}
        """Where each directory of the manager before was mounted."""
        self.catalogue: str | None = json.loads(meta.get("catalogue", "null"))
        """The database of the endpoint's embedded catalogue that files were ingested into last."""

    @classmethod
    def open(
        cls,
        path: Path,
        lifecycle: Lifecycle,
        *,
        create: bool = True,
        busy_timeout: float = 5.0,
        patience: Callable[[LedgerError], bool] = lambda _: False,
        trace: schema.Trace | None = None,
    ) -> "Ledger":
        """Open a ledger, bring its schema up to date, or create it with the directories above it.

        Parameters
        ----------
        create
            Whether a ledger that isn't there is made.
        busy_timeout
            Seconds to wait for another writer.
        patience
            Is asked when a verb found the ledger busy or its disk full, and says, after a while of its
            own, whether to try again. `beat`, `progress` and `tend` are not worth it.
        trace
            Is given every SQL statement, with its values, as it runs.

        Raises
        ------
        LedgerError
            It can't be used; of a file that isn't a ledger of this kind and version nothing is touched.
        """
        schema.require_sqlite()
        scripts = schema.migrations()
        if not schema.recognise(path, len(scripts), to_write=True) and not create:
            raise schema.missing(path)
        schema.prepare_directory(path)
        with translated(path):
            connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None)
            try:
                connection.set_trace_callback(trace)
                connection.execute("PRAGMA foreign_keys = ON")
                schema.migrate(connection, path, lifecycle, scripts)
                schema.write_ahead(connection, path)
                return cls(connection, path, lifecycle, patience)
            except BaseException:
                connection.close()
                raise

    def close(self) -> None:
        """Close it; the last one to do so folds the -wal file into the database."""
        with translated(self.path):
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def algorithm(self) -> Algorithm | None:
        """What digests are computed with; None until it has been chosen."""
        return self._algorithm

    @_patiently
    def choose_algorithm(self, algorithm: Algorithm) -> Algorithm:
        """Settle on an algorithm, once and for all; returns the one that was chosen first."""
        with self._transaction() as connection:
            connection.execute(_CHOOSE_ALGORITHM, (algorithm,))
            chosen = cast(Algorithm, schema.read_meta(connection)["algorithm"])
        self._algorithm = chosen
        return chosen

    @_patiently
    def note_mount_points(self, points: Mapping[bytes, bytes]) -> None:
        """Say for the next manager where each directory is mounted."""
        # In JSON that is ASCII a path may have any bytes.
        told = json.dumps({os.fsdecode(path): os.fsdecode(point) for path, point in points.items()})
        with self._transaction() as connection:
            connection.execute(_NOTE, ("mount_points", told))
        self.mount_points = dict(points)

    @_patiently
    def note_catalogue(self, database: str) -> None:
        """Say which database the embedded catalogue is, now that something was ingested into it."""
        # As above: a path may have any bytes.
        with self._transaction() as connection:
            connection.execute(_NOTE, ("catalogue", json.dumps(database)))
        self.catalogue = database

    @_patiently
    def note_renewal(self, *, now_ms: int) -> None:
        """Say that the running manager has read its configuration again."""
        with self._transaction() as connection:
            connection.execute(_NOTE, ("renewed_at", str(now_ms)))

    @_patiently
    def versions(self, paths: Sequence[bytes]) -> dict[bytes, tuple[Version, ...]]:
        """The known versions of each of these paths that has any, newest first."""
        with translated(self.path):
            return record.versions(self._connection, paths)

    @_patiently
    def record(self, found: Sequence[Found], *, now_ms: int) -> Recorded:
        """Enter a page of found files: new versions, known ones that came back, renewed fences.

        The files must have been seen after the last `finish`: one that was held since would be taken
        for one that came again.
        """
        with self._transaction() as connection:
            return record.record(connection, self._states, found, now_ms)

    @_patiently
    def backfill(self, state: str, found: Sequence[Found], *, now_ms: int) -> int:
        """Enter hashed files in a state in which entries may begin settled; returns how many were new."""
        with self._transaction() as connection:
            return record.backfill(connection, state, found, now_ms)

    @_patiently
    def keep_origins(self, known: Sequence[Origin]) -> None:
        """Keep what delivery notes say of versions."""
        if known:
            with self._transaction() as connection:
                origins.keep(connection, known)

    @_patiently
    def origins(self, paths: Sequence[bytes]) -> dict[tuple[bytes, Checksum], tuple[bytes, int]]:
        """By version of these paths, the delivery note that named it and when it was sent."""
        with translated(self.path):
            return origins.origins(self._connection, paths)

    @_patiently
    def claim(
        self,
        step: Step,
        *,
        limit: int,
        max_bytes: int,
        worker: int,
        now_ms: int,
        newest_first: bool = False,
        bulky: bool | None = None,
        skip: int = 0,
    ) -> Batch | None:
        """Take up to `limit` entries and `max_bytes` (but at least one entry) into a step.

        What failed before and is due goes first and rides alone, so that a poison file never holds up
        good ones; `bulky` restricts the choice to files that are, or are not, and `skip` passes over
        so many of the others.
        """
        wish = claim.Wish(step, limit, max_bytes, newest_first, bulky, worker, skip)
        with self._transaction() as connection:
            return claim.claim(connection, wish, now_ms)

    @_patiently
    def finish(self, batch: Batch, report: Report, *, backoff: Backoff, now_ms: int) -> int:
        """Write the outcomes of a batch; returns how many of its entries moved.

        `backoff` gives the seconds to wait after so many attempts, None once they are spent. Entries
        without an outcome go back to where they came from; only those that are still in this batch move.
        An entry keeps the digest that it has: an outcome with another one settles it as vanished.
        """
        verdict = Verdict(self._states, batch, report, backoff, now_ms)
        with self._transaction() as connection:
            return finish.finish(connection, verdict)

    @_patiently
    def rescue(self, *, now_ms: int) -> int:
        """Put everything in flight back to where work on it resumes; returns how many entries.

        For the start of a manager. `claims` stay, so that a worker knows to ask what has arrived.
        """
        with self._transaction() as connection:
            return resume.rescue(connection, self._states, now_ms)

    @_patiently
    def vanish(self, ids: Sequence[int], *, reason: str, now_ms: int) -> int:
        """Say that the content of these is gone; what is in flight, or settled, stays as it is."""
        with self._transaction() as connection:
            return resume.vanish(connection, ids, reason, now_ms)

    def retry(
        self,
        *,
        paths: Sequence[bytes] | None = None,
        cause: str | None = None,
        states: Sequence[str] = (FAILED,),
        now_ms: int,
    ) -> int:
        """Make entries in trouble eligible at once, with their attempts reset; returns how many.

        `paths` are files, or directories with all below them; None means everywhere. `cause` is any part
        of a cause, in upper or lower case.
        """
        retried = 0
        for state in states:
            for path in [None] if paths is None else paths:
                retried += self._retry(resume.Trouble(state, cause or "", path), now_ms)
        return retried

    @_patiently
    def once_more(self, step: Step, cause: str, *, reason: str, now_ms: int) -> bytes | None:
        """Give one file that failed in a step for that cause, and waits for a person, a last try.

        It is due at once, and rides apart. Its attempts are not reset. Returns its path, if there is one.
        """
        with self._transaction() as connection:
            return resume.once_more(connection, step, cause, reason, now_ms)

    @_patiently
    def has_passed_since(self, step: Step, entry: Entry) -> bool:
        """Whether another file went through a step since this one, which is in it, first failed there.

        What happened within the same second is not known to be later.
        """
        with translated(self.path):
            return resume.has_passed_since(self._connection, step, entry)

    @_patiently
    def next_due(self, step: Step) -> int | None:
        """When the first entry that failed in this step is to be tried again."""
        with translated(self.path):
            return resume.next_due(self._connection, step)

    @_patiently
    def reschedule(self, by_ms: int) -> int:
        """Shift all times of next tries, after the clock has been set by so much; returns how many."""
        with self._transaction() as connection:
            return resume.reschedule(connection, self._states, by_ms)

    @_patiently
    def bring_forward(self, latest_ms: int) -> int:
        """Let no next try be later than that; returns how many would have been."""
        with self._transaction() as connection:
            return resume.bring_forward(connection, self._states, latest_ms)

    @_patiently
    def totals(self) -> tuple[Total, ...]:
        """Files and bytes by state and cause."""
        with translated(self.path):
            return totals(self._connection)

    def beat(self, row: ManagerRow) -> None:
        """Say that the manager lives, and how.

        Raises
        ------
        LedgerError
            Somebody has taken the ledger away: what is written goes into a file without a name.
        """
        self._see_that_it_is_in_place()
        values = {**asdict(row), "disk": json.dumps(row.disk)}
        with translated(self.path):
            self._connection.execute(_BEAT, values)

    def progress(self, batch_id: int, *, phase: str, progress_bytes: int) -> None:
        """Say how far a batch has come."""
        with translated(self.path):
            self._connection.execute(_PROGRESS, (phase, progress_bytes, batch_id))

    @_patiently
    def receipts(self, receipts: Sequence[Receipt]) -> int:
        """Note what the endpoint manager says of known versions; returns how many of these were news."""
        rows = [
            (receipt.state, receipt.at, receipt.path, *checksum_columns(receipt.checksum))
            for receipt in receipts
        ]
        with self._transaction() as connection:
            return connection.executemany(_RECEIPT, rows).rowcount if rows else 0

    def tend(self) -> None:
        """Fold the -wal file into the database as far as readers let: about once a minute, best when idle."""
        with translated(self.path):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _see_that_it_is_in_place(self) -> None:
        try:
            if os.path.samestat(os.stat(self.path), self._file):
                return
        except FileNotFoundError:
            pass
        raise LedgerError(
            f"{self.path}: the ledger was removed or replaced while the manager worked with it",
            "Put it back, or start again: with a new ledger, files that have arrived already are recognised.",
        )

    @_patiently
    def _retry_page(self, trouble: resume.Trouble, now_ms: int) -> int:
        with self._transaction() as connection:
            return resume.retry(connection, self._states, trouble, _RETRY_PAGE, now_ms)

    def _retry(self, trouble: resume.Trouble, now_ms: int) -> int:
        retried = 0
        while True:
            page = self._retry_page(trouble, now_ms)
            retried += page
            if page < _RETRY_PAGE:
                return retried

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        with translated(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # SQLite may have rolled back by itself, when the disk was full.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
