"""What SQLite's errors mean to an operator."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import LedgerError

_NO_RIGHTS = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")

_CORRUPT_HINT = (
    "Put it aside with the -wal and -shm beside it and start again: with a new ledger, files that have "
    "arrived already are recognised, not overwritten. `sqlite3 FILE .recover` may save the history."
)


class LedgerBusy(LedgerError):  # noqa: N818 - it says what is the case
    """Another process kept the ledger locked for too long; the next try may succeed."""


class LedgerFull(LedgerError):  # noqa: N818 - it says what is the case
    """There is no space to write; the transaction was rolled back, and may succeed once there is."""


@contextmanager
def translated(path: Path, *, reading: bool = False) -> Iterator[None]:
    """Turn errors of SQLite into errors of the ledger at `path`."""
    try:
        yield
    except sqlite3.Error as error:
        # The name is missing where the error is Python's own (a closed connection, say).
        name = getattr(error, "sqlite_errorname", "")
        raise (_refusal_to_read(error, name, path) if reading else None) or _meaning(
            error, name, path
        ) from error


def _refusal_to_read(error: sqlite3.Error, name: str, path: Path) -> LedgerError | None:
    """Even a reader writes: into the -shm file beside the ledger, which it makes if no manager has."""
    if not name.startswith(_NO_RIGHTS):
        return None
    return LedgerError(
        f"{path}: the ledger can't be read while no manager has it open, for lack of the right to write "
        f"in {path.parent} ({error})",
        "Ask as the user that the manager runs as, or while it runs.",
    )


def _meaning(error: sqlite3.Error, name: str, path: Path) -> LedgerError:
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return LedgerBusy(
            f"{path}: another process has kept the ledger locked for too long",
            "Nothing is lost; it is tried again. `fuser` with the file's name tells who it is.",
        )
    if name in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"):
        return LedgerFull(
            f"{path}: no space left for the ledger", f"Make room on the filesystem of {path.parent}."
        )
    if name.startswith(_NO_RIGHTS):
        return LedgerError(
            f"{path}: the ledger can't be written ({error})",
            f"The manager must have the right to write the file, its -wal and -shm, and {path.parent}.",
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return LedgerError(f"{path}: the ledger is corrupt ({error})", _CORRUPT_HINT)
    if name.startswith("SQLITE_CONSTRAINT"):
        return LedgerError(
            f"{path}: the ledger refused a change ({error})",
            "This is an error in the program, and worth a report; nothing was changed.",
        )
    return LedgerError(f"{path}: {error} ({name or type(error).__name__})", "See whether the disk is well.")
