"""The reading side of the ledger, for `status`, `history` and `check`: never writes, never in the way."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, cast
from urllib.parse import quote

from common.errors import LedgerError
from common.files import Algorithm
from common.ledger import schema
from common.ledger.faults import translated
from common.ledger.pace import pace
from common.ledger.rows import (
    Carried,
    FailureGroup,
    ManagerRow,
    Rate,
    Total,
    VersionStory,
    Waiting,
)
from common.ledger.story import stories
from common.ledger.totals import totals

_UNSETTLED = """
    SELECT
        state,
        found_at,
        path,
        reason
    FROM files
    WHERE settled = 0
"""

_WAITING = f"""
    {_UNSETTLED}
        AND cause = ''
    ORDER BY found_at
    LIMIT 1
"""

_WAITING_IN_TROUBLE = f"""
    {_UNSETTLED}
        AND cause <> ''
    ORDER BY found_at
    LIMIT 1
"""

_TROUBLES = """
    SELECT
        state,
        cause,
        files,
        bytes
    FROM totals
    WHERE cause <> ''
        AND files > 0
    ORDER BY files DESC
    LIMIT ?
"""

_EXAMPLE = """
    SELECT
        path,
        reason,
        due_at
    FROM files
    WHERE state = ?
        AND cause = ?
        AND cause <> ''
    ORDER BY due_at NULLS LAST
    LIMIT 1
"""

# One by one, in two parts, each read in the order of the index: what is due, and what waits for a person.
_IN_TROUBLE = """
    SELECT
        id,
        path,
        state,
        cause,
        reason,
        attempts,
        due_at,
        size,
        found_at
    FROM files
    WHERE state = :state
        AND cause = :cause
        AND cause <> ''
"""

_IN_TROUBLE_AND_DUE = f"""
    {_IN_TROUBLE}
        AND (due_at, id) > (:due_at, :id)
    ORDER BY due_at, id
    LIMIT :limit
"""

_IN_TROUBLE_FOR_GOOD = f"""
    {_IN_TROUBLE}
        AND due_at IS NULL
        AND id > :id
    ORDER BY id
    LIMIT :limit
"""

_BELOW = """
    SELECT 1
    FROM files
    WHERE path > ?
        AND path < ?
    LIMIT 1
"""

_CARRYING = """
    SELECT
        id AS batch_id,
        worker,
        step,
        started_at AS since,
        phase,
        example,
        files,
        bytes,
        progress_bytes
    FROM batches
    WHERE finished_at IS NULL
    ORDER BY worker
"""

_MANAGER = """
    SELECT
        pid,
        host,
        version,
        started_at,
        heartbeat_at,
        endpoint_state,
        endpoint_since,
        endpoint_reason,
        paused,
        disk
    FROM manager
"""


@dataclass(frozen=True, slots=True)
class InTrouble:
    """A file that failed, or that waits for a person's decision."""

    id: int
    path: bytes
    state: str
    cause: str
    reason: str
    attempts: int
    due_at: int | None
    """When it is tried again; None: it waits for `retry`."""
    size: int
    found_at: int


class LedgerReader:
    """Reads a ledger, whether a manager has it open or not.

    Each question raises `LedgerError` where it can't be answered. Times are milliseconds since the epoch.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """Use `open`."""
        self._connection = connection
        self.path = path
        meta = schema.read_meta(connection)
        self.id = meta["id"]
        self.manager_kind = meta["manager"]
        """Whose ledger it is: ``handoff`` or ``endpoint``."""
        self.algorithm = cast(Algorithm | None, meta.get("algorithm"))
        self.catalogue: str | None = json.loads(meta.get("catalogue", "null"))
        """The database of the endpoint's embedded catalogue that files were ingested into last."""

    @classmethod
    def open(
        cls, path: Path, *, manager: str | None = None, trace: schema.Trace | None = None
    ) -> "LedgerReader":
        """Open a ledger; with `manager`, only one of that kind.

        Raises
        ------
        LedgerError
            It isn't there, isn't a ledger of this kind and version, or can't be read; the hint says more.
        """
        schema.require_sqlite()
        newest = len(schema.migrations())
        if not schema.recognise(path, newest, to_write=False):
            raise schema.missing(path)
        with translated(path, reading=True):
            connection = sqlite3.connect(f"file:{quote(bytes(path))}?mode=ro", uri=True, isolation_level=None)
            try:
                connection.row_factory = sqlite3.Row
                connection.set_trace_callback(trace)
                connection.execute("PRAGMA query_only = ON")
                _refuse_unreadable(connection, path, newest)
                reader = cls(connection, path)
                if manager is not None:
                    schema.refuse_other_manager(path, reader.manager_kind, manager)
            except BaseException:
                connection.close()
                raise
            return reader

    def close(self) -> None:
        with self._reading():
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let several questions be answered as of one instant; while it lasts, the log of changes grows."""
        with self._reading():
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK")

    def totals(self) -> tuple[Total, ...]:
        """Files and bytes by state and cause."""
        with self._reading():
            return totals(self._connection)

    def waits(self) -> tuple[Waiting, ...]:
        """What has waited longest of those that are well, and of those that failed; the older one first."""
        with self.snapshot():
            rows = [
                row for query in (_WAITING, _WAITING_IN_TROUBLE) for row in self._connection.execute(query)
            ]
        return tuple(sorted((Waiting(**dict(row)) for row in rows), key=lambda one: one.found_at))

    def oldest_waiting(self) -> Waiting | None:
        """The file that has waited longest, of all that are not settled."""
        return next(iter(self.waits()), None)

    def rates(self, state: str, *, now_ms: int, windows: Sequence[int] = (60, 300, 900)) -> dict[str, Rate]:
        """What has come into a state within windows of so many seconds, by their names: ``1m``, ``5m``."""
        with self._reading():
            return {
                f"{window // 60}m": Rate(*pace(self._connection, state, window, now_ms)) for window in windows
            }

    def failures(self, limit: int = 20) -> tuple[FailureGroup, ...]:
        """What is in trouble, grouped by cause, the largest groups first."""
        groups = []
        with self.snapshot():
            for state, cause, files, size in self._connection.execute(_TROUBLES, (limit,)).fetchall():
                example, reason, due_at = self._connection.execute(_EXAMPLE, (state, cause)).fetchone()
                groups.append(FailureGroup(state, cause, example, reason, files, size, due_at))
        return tuple(groups)

    def in_trouble(
        self, state: str, cause: str, *, after: InTrouble | None = None, limit: int = 500
    ) -> tuple[InTrouble, ...]:
        """A page of the files in one state for one cause: first what is due soonest, last what waits."""
        about: dict[str, object] = {"state": state, "cause": cause}
        about |= {"due_at": after.due_at if after else -1, "id": after.id if after else 0}
        found: list[InTrouble] = []
        with self.snapshot():
            if after is None or after.due_at is not None:
                rows = self._connection.execute(_IN_TROUBLE_AND_DUE, about | {"limit": limit})
                found += [InTrouble(**dict(row)) for row in rows]
                about["id"] = 0
            rows = self._connection.execute(_IN_TROUBLE_FOR_GOOD, about | {"limit": limit - len(found)})
            found += [InTrouble(**dict(row)) for row in rows]
        return tuple(found)

    def knows_below(self, directory: bytes) -> bool:
        """Whether any known file lies below a directory."""
        # In the order of bytes, "0" follows "/".
        ends = directory + b"/", directory + b"0"
        with self._reading():
            return self._connection.execute(_BELOW, ends).fetchone() is not None

    def carrying(self) -> tuple[Carried, ...]:
        """The batches in flight, by worker."""
        with self._reading():
            return tuple(Carried(**dict(row)) for row in self._connection.execute(_CARRYING))

    def manager(self) -> ManagerRow | None:
        """What the last manager said of itself; None if there never was one."""
        with self._reading():
            row = self._connection.execute(_MANAGER).fetchone()
        return ManagerRow(**dict(row) | {"disk": json.loads(row["disk"])}) if row else None

    def renewed_at(self) -> int | None:
        """When a running manager read its configuration again, this or one before; None: never."""
        with self._reading():
            at = schema.read_meta(self._connection).get("renewed_at")
        return None if at is None else int(at)

    def history(self, path: bytes) -> tuple[VersionStory, ...]:
        """Every version of a path, newest first."""
        with self.snapshot():
            return stories(self._connection, path)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with translated(self.path, reading=True):
            yield


def _refuse_unreadable(connection: sqlite3.Connection, path: Path, newest: int) -> None:
    """Raise LedgerError for a version of the schema that has been, or is yet to come."""
    version = schema.read_version(connection)
    schema.refuse_newer(path, version, newest)
    if version == 0:
        raise schema.missing(path)
    if version < newest:
        raise LedgerError(
            f"{path}: the ledger has schema version {version}, this program reads version {newest}",
            "`start` or `initdb` brings it up to date.",
        )
