"""The ledger's schema: recognising a ledger, creating it, and bringing an older one up to date."""

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path

from common.errors import LedgerError
from common.ledger.descriptors import is_open_here
from common.ledger.states import States
from common.lifecycle import Lifecycle

APPLICATION_ID = 0x6462624C
"""``dbbL``, in the header of each ledger."""

_OLDEST_SQLITE = (3, 37, 0)
"""The first one with STRICT tables."""

_CHECKPOINT_PAGES = 4000
"""16 MB. A checkpoint waits for the disk, so that it should not come with every burst of files."""
_LOG_BYTES = 64 << 20
"""A log that has grown beyond this, because of a long reader, say, is cut once it is written back."""

Trace = Callable[[str], object]
"""Is given every SQL statement, with its values, as it runs."""

_MAGIC = b"SQLite format 3\x00"
_OTHER_FILE_HINT = "Name a new file in database.engine; this one was left as it is."


def migrations() -> tuple[str, ...]:
    """The scripts that make the schema; after the first n of them it has version n."""
    files = (file for file in resources.files("common.ledger").iterdir() if file.name.endswith(".sql"))
    return tuple(file.read_text("utf-8") for file in sorted(files, key=lambda file: file.name))


def recognise(path: Path, newest: int, *, to_write: bool) -> bool:
    """Tell from a file's first bytes that it is a ledger; false if it is missing or empty.

    SQLite is not asked, because its mere opening of a foreign database may leave files beside it; and it
    would open one that can't be written without a word.

    Raises
    ------
    LedgerError
        It is something else, of a newer version than `newest`, or lacks the rights.
    """
    try:
        if is_open_here(path):
            return True
        with open(path, "r+b" if to_write else "rb", buffering=0) as file:
            header = file.read(100)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LedgerError(
            f"{path}: the ledger can't be {'written' if to_write else 'read'}: {error.strerror}",
            "It must be a file to which the user has the right, on a disk that allows it.",
        ) from error
    if not header:
        return False
    if not header.startswith(_MAGIC) or len(header) < 100:
        raise LedgerError(f"{path} is no ledger, or one whose beginning is destroyed", _OTHER_FILE_HINT)
    # Offsets from https://www.sqlite.org/fileformat.html
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise LedgerError(f"{path} is another program's database, not a ledger", _OTHER_FILE_HINT)
    refuse_newer(path, int.from_bytes(header[60:64], "big"), newest)
    return True


def require_sqlite(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> None:
    """Raise LedgerError for a SQLite that does not know what the schema is written in."""
    if version < _OLDEST_SQLITE:
        found, needed = (".".join(map(str, one)) for one in (version, _OLDEST_SQLITE))
        raise LedgerError(
            f"the ledger needs SQLite {needed} or newer, and this Python has {found}",
            "Use a Python that brings its own SQLite, as those of uv and conda do.",
        )


def missing(path: Path) -> LedgerError:
    """The error for a ledger that isn't there, and must not be made."""
    return LedgerError(
        f"there is no ledger at {path}", "`start` or `initdb` creates it; or name another file."
    )


def refuse_newer(path: Path, version: int, newest: int) -> None:
    """Raise LedgerError for a version that is yet to come."""
    if version > newest:
        raise LedgerError(
            f"{path}: the ledger has schema version {version}; this program knows versions up to {newest}",
            "Use the newer program that wrote it. Nothing was touched.",
        )


def refuse_other_manager(path: Path, found: str, wanted: str) -> None:
    """Raise LedgerError for the ledger of another kind of manager."""
    if found != wanted:
        raise LedgerError(
            f"{path} is the ledger of a manager of the kind `{found}`, not `{wanted}`", _OTHER_FILE_HINT
        )


def prepare_directory(path: Path) -> None:
    """Make the directories above a ledger; raise LedgerError where it could not be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(
            f"{path}: the directory for the ledger can't be made: {error.strerror}",
            "Make it, or name another file in database.engine.",
        ) from error
    if not os.access(path.parent, os.W_OK):
        raise LedgerError(
            f"{path}: the ledger can't be written: no right to write in {path.parent}",
            f"The manager must have the right to write in {path.parent}, on a disk that allows it.",
        )


def migrate(connection: sqlite3.Connection, path: Path, lifecycle: Lifecycle, scripts: Sequence[str]) -> None:
    """Bring the schema up to date, and the moves to those of the lifecycle; or leave all as it is."""
    states = States.of(lifecycle)
    version = read_version(connection)
    if version:
        refuse_newer(path, version, len(scripts))
        refuse_other_manager(path, read_meta(connection).get("manager", ""), lifecycle.manager)
        if version == len(scripts) and _knows(connection, states):
            return
    connection.execute("BEGIN EXCLUSIVE")
    try:
        # Looked up again: another process may have been faster.
        for script in scripts[read_version(connection) :]:
            for statement in statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(scripts)}")
        _introduce(connection, lifecycle, states)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def write_ahead(connection: sqlite3.Connection, path: Path) -> None:
    """Switch to the write-ahead log, in which readers and the writer don't hold each other up.

    With it, synchronous=NORMAL can lose the last transactions to a power cut, never tear one: what had
    moved since is asked of the endpoint again.

    Raises
    ------
    LedgerError
        The filesystem can't hold one.
    """
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise LedgerError(
            f"{path}: this filesystem can't hold a ledger (no write-ahead log)", "Put it on a local disk."
        )
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    # What SQLite notes in order to undo a single statement: in a file it would cost a write a page.
    connection.execute("PRAGMA temp_store = MEMORY")


def read_meta(connection: sqlite3.Connection) -> dict[str, str]:
    """What the ledger says that it is."""
    return dict(connection.execute("SELECT key, value FROM meta"))


def statements(script: str) -> Iterator[str]:
    """The single statements of a script. (`executescript` would commit on its own.)"""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def read_version(connection: sqlite3.Connection) -> int:
    """The version of the schema; 0 before there is one."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _knows(connection: sqlite3.Connection, states: States) -> bool:
    """Whether the moves and steps in the ledger are those of the lifecycle."""
    moves = set(connection.execute("SELECT source, target, in_flight, trouble, settled FROM moves"))
    steps = set(connection.execute("SELECT working, source, target, position FROM steps"))
    return moves == states.move_rows() and steps == states.step_rows()


def _introduce(connection: sqlite3.Connection, lifecycle: Lifecycle, states: States) -> None:
    """Say whose ledger it is, and which moves there are."""
    connection.executemany(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [("id", secrets.token_hex(8)), ("manager", lifecycle.manager)],
    )
    connection.execute("DELETE FROM moves")
    connection.execute("DELETE FROM steps")
    connection.executemany("INSERT INTO moves VALUES (?, ?, ?, ?, ?)", states.move_rows())
    connection.executemany("INSERT INTO steps VALUES (?, ?, ?, ?)", states.step_rows())
