"""The catalogue `sqlite`: one row a file, with its headers, in a database that needs no server."""

import gzip
import os
import re
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from shutil import copyfileobj

from common.ledger.schema import statements
from endpoint.catalogues.cards import Card, Value, parse
from endpoint.catalogues.contract import CatalogueError, Request, Result, Verdict
from endpoint.catalogues.fits import FitsError, headers
from endpoint.catalogues.observation import Observation, Observer

APPLICATION_ID = 0x64626263
"""``dbbc``, in the header of each catalogue."""
VERSION = 1
"""Of the schema."""

_KEYS = ("path", "cards", "create")
_AT_ONCE = 200
"""Files in a transaction; their results come after its commit."""
_CHECKPOINT_PAGES = 4000
"""16 MB. A checkpoint waits for the disk, so that it should not come with every few batches."""
_FITS_NAME = re.compile(rb"\.(?:fits?|fts)(?:\.fz|\.gz)?$", re.IGNORECASE)
_FITS_MAGIC = b"SIMPLE  ="
_GZIP_MAGIC = b"\x1f\x8b"
_INTEGERS = range(-(1 << 63), 1 << 63)

_OBSERVATION = tuple(one.name for one in fields(Observation))
_COLUMNS = ("name", "path", "size", "algorithm", "digest", "ingested_at", "kind", *_OBSERVATION)
_INSERT_FILE = f"""
    INSERT INTO files ({", ".join(_COLUMNS)})
    VALUES ({", ".join("?" * len(_COLUMNS))})
    ON CONFLICT (name) DO NOTHING
"""
_INSERT_CARD = """
    INSERT INTO cards (file_id, hdu, position, keyword, value, comment)
    VALUES (?, ?, ?, ?, ?, ?)
"""
_DELETE_CARDS = """
    DELETE FROM cards
    WHERE file_id = ?
"""
_SELECT = """
    SELECT algorithm, digest
    FROM files
    WHERE name = ?
"""


@dataclass(frozen=True, slots=True)
class _Examined:
    """A file that may be catalogued."""

    request: Request
    kind: str
    units: tuple[list[Card], ...] = ()
    observation: Observation = field(default_factory=Observation)


class SqliteCatalogue:
    """A database with a table of files and one of their headers' cards.

    Its configuration: `path`, of the database; `create`, whether it is made where there is none; and `cards`,
    whether all cards are kept as well: both are so. `patience`, in seconds, is for others who have it locked.
    """

    def __init__(self, config: Mapping[str, object], *, patience: float = 5.0) -> None:
        for key in config.keys() - set(_KEYS):
            near = get_close_matches(key, _KEYS, n=1)
            raise ValueError(f"{key}: unknown key" + (f"; did you mean {near[0]}?" if near else ""))
        path, cards, create = config.get("path"), config.get("cards", True), config.get("create", True)
        if not isinstance(path, str | Path) or not str(path):
            raise ValueError("path: must be the path of the catalogue's database")
        if not isinstance(cards, bool):
            raise ValueError("cards: must be true or false")
        if not isinstance(create, bool):
            raise ValueError("create: must be true or false")
        self._path = Path(path).expanduser()
        self._keeps_cards = cards
        self._creates = create
        self._patience = patience
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        """Which one it is that was opened."""
        self._observer = Observer()

    def open(self) -> None:
        with _translated(self._path), ExitStack() as stack:
            self._refuse_other_file()
            connection = sqlite3.connect(self._path, timeout=self._patience, isolation_level=None)
            stack.callback(connection.close)
            connection.execute("PRAGMA foreign_keys = ON")
            self._create(connection)
            # What is reported as ingested has to be there after a power cut as well.
            connection.execute("PRAGMA synchronous = FULL")
            self._write_ahead(connection)
            # What SQLite notes in order to undo a single file: on disk it would cost a write a page.
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            self._file = self._found()
            stack.pop_all()
            self._connection = connection

    def ingest(self, requests: Sequence[Request]) -> Iterator[Result]:
        for start in range(0, len(requests), _AT_ONCE):
            yield from self._ingested(requests[start : start + _AT_ONCE])

    def version(self) -> str:
        self._refuse_other_file()
        return f"sqlite {sqlite3.sqlite_version}, {self._path}"

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _refuse_other_file(self) -> None:
        """Before SQLite opens it: that alone may leave files beside a foreign database."""
        try:
            with open(self._path, "rb", buffering=0) as file:
                begin = file.read(100)
        except FileNotFoundError as error:
            if self._creates and self._path.parent.is_dir():
                return
            raise _missing(self._path) from error
        except OSError as error:
            raise _unwritable(self._path, str(error.strerror)) from error
        if not begin or Path(f"{self._path}-journal").exists():  # new, or its making was cut short
            return
        if not begin.startswith(b"SQLite format 3\x00"):
            raise _corrupt(self._path, "it is no SQLite database")
        if begin[68:72] != APPLICATION_ID.to_bytes(4, "big"):
            raise CatalogueError(
                f"{self._path}: is a database of something else than this catalogue",
                "name a new file in ingester.config.path; this one was left as it was",
            )
        if not os.access(self._path, os.W_OK):
            raise _unwritable(self._path, "no right to write")

    def _create(self, connection: sqlite3.Connection) -> None:
        """Make the schema where there is none. Two may come at the same time."""
        with _transaction(connection):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise CatalogueError(
                    f"{self._path}: was made by a newer version (schema {version}, here {VERSION})",
                    "install that version of dbb-buffer-managers",
                )
            if version == 0:
                schema = resources.files("endpoint.catalogues").joinpath("sqlite.sql").read_text("utf-8")
                # Not executescript, which would end the transaction.
                for statement in statements(schema):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {VERSION}")

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        """Others may read while we write. For this change SQLite does not wait until nobody else is there."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _ingested(self, requests: Sequence[Request]) -> list[Result]:
        """The results of some files, all committed."""
        results: list[Result] = []
        examined: list[_Examined] = []
        with _translated(self._path):
            for request in requests:
                found = self._known(request) or self._examine(request)
                if isinstance(found, Result):
                    results.append(found)
                else:
                    examined.append(found)
            if examined:
                with _transaction(self._connected):
                    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
                    results += [self._insert(file, now) for file in examined]
        # SQLite goes on writing into a file that was moved away or removed, and says nothing.
        if self._found() != self._file:
            raise CatalogueError(
                f"{self._path}: was moved, removed or replaced while it was open",
                "bring it back; what lies there now is opened in its place",
            )
        return results

    def _found(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    @property
    def _connected(self) -> sqlite3.Connection:
        assert self._connection is not None, "it has been opened"
        return self._connection

    def _known(self, request: Request) -> Result | None:
        """What there is to say of a file that is in the catalogue already."""
        row = self._connected.execute(_SELECT, (_text(request.name),)).fetchone()
        if row is None:
            return None
        if row == (request.checksum.algorithm, request.checksum.digest):
            return Result(request.id, Verdict.ALREADY)
        return Result(
            request.id,
            Verdict.CONFLICT,
            f"the catalogue has a file of this name with {row[0]} {row[1]}, this one has "
            f"{request.checksum.algorithm} {request.checksum.digest}",
        )

    def _examine(self, request: Request) -> _Examined | Result:
        try:
            own = _headers(request.path)
        except FitsError as error:
            return Result(request.id, Verdict.INVALID, str(error))
        except OSError as error:
            return Result(request.id, Verdict.FAILED, f"can't be read: {error.strerror or error}")
        if own is None:
            return _Examined(request, "other")
        units = tuple(parse(header) for header in own)
        return _Examined(request, "fits", units, self._observer.read(units))

    def _insert(self, file: _Examined, now: str) -> Result:
        request = file.request
        connection = self._connected
        connection.execute("SAVEPOINT file")
        try:
            cursor = connection.execute(_INSERT_FILE, _row(file, now))
            if cursor.rowcount == 0:  # somebody else has been faster
                return self._known(request) or Result(request.id, Verdict.FAILED, "it came and went")
            file_id = cursor.lastrowid or 0
            # An id is given again when somebody has removed the last file, perhaps without its cards.
            connection.execute(_DELETE_CARDS, (file_id,))
            if self._keeps_cards:
                connection.executemany(_INSERT_CARD, _card_rows(file_id, file.units))
        except (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, UnicodeEncodeError) as error:
            connection.execute("ROLLBACK TO file")
            return Result(request.id, Verdict.FAILED, f"the catalogue did not take it: {error}")
        finally:
            with suppress(sqlite3.OperationalError):  # a full disk has ended the transaction as a whole
                connection.execute("RELEASE file")
        return Result(request.id, Verdict.INGESTED)


def _headers(path: bytes) -> list[bytes] | None:
    """The headers of a FITS file; None if it neither is nor claims to be one."""
    with open(path, "rb", buffering=0) as file:
        magic = file.read(len(_FITS_MAGIC))
    named = _FITS_NAME.search(path) is not None
    if named and magic.startswith(_GZIP_MAGIC):
        return _unzipped(path)
    return headers(path) if named or magic == _FITS_MAGIC else None


def _unzipped(path: bytes) -> list[bytes]:
    with tempfile.NamedTemporaryFile() as plain:
        try:
            with gzip.open(path) as packed:
                copyfileobj(packed, plain, 1 << 20)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FitsError(f"its compression is damaged: {error}") from error
        plain.flush()
        return headers(os.fsencode(plain.name))


def _row(file: _Examined, now: str) -> tuple[Value | bytes, ...]:
    request = file.request
    checksum = request.checksum
    own = (_text(request.name), _text(request.path), request.size, checksum.algorithm, checksum.digest)
    return (*own, now, file.kind, *(_storable(getattr(file.observation, name)) for name in _OBSERVATION))


def _card_rows(file_id: int, units: Sequence[list[Card]]) -> Iterator[tuple[Value, ...]]:
    for hdu, unit in enumerate(units):
        for position, (keyword, value, comment) in enumerate(unit):
            yield file_id, hdu, position, keyword, _storable(value), comment


def _storable(value: Value) -> Value:
    """SQLite's integers have 64 bits, those of headers as many digits as a card has room for."""
    return str(value) if isinstance(value, int) and value not in _INTEGERS else value


def _text(name: bytes) -> str | bytes:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # it may have been rolled back already
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into those of a catalogue."""
    try:
        yield
    except sqlite3.Error as error:
        raise _meaning(path, error) from error


def _meaning(path: Path, error: sqlite3.Error) -> CatalogueError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return CatalogueError(
            f"{path}: another process has kept the catalogue locked for too long",
            "nothing is lost; it is tried again. `fuser` with the file's name tells who it is",
        )
    if name in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"):
        return CatalogueError(
            f"{path}: no space left for the catalogue", f"make room on the filesystem of {path.parent}"
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return _unwritable(path, str(error))
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return _corrupt(path, str(error))
    return CatalogueError(f"{path}: {error} ({name or type(error).__name__})", "see whether the disk is well")


def _missing(path: Path) -> CatalogueError:
    if path.parent.is_dir():
        return CatalogueError(
            f"{path}: is not there, and a new one would lack what was ingested before",
            "bring it back, or a copy, or mount its disk; an empty file there becomes a new one",
        )
    # Made by us, it would hide a name that is mistyped, or a disk that is not mounted.
    return CatalogueError(
        f"{path.parent}, which the catalogue lies in, is no directory",
        "make it, mount its disk, or correct ingester.config.path",
    )


def _unwritable(path: Path, reason: str) -> CatalogueError:
    return CatalogueError(
        f"{path}: the catalogue can't be written ({reason})",
        f"the manager must have the right to write the file, its -wal and -shm, and {path.parent}",
    )


def _corrupt(path: Path, reason: str) -> CatalogueError:
    return CatalogueError(
        f"{path}: the catalogue is corrupt ({reason}); it was left as it is",
        "put it aside with the -wal and -shm beside it; `sqlite3 FILE .recover` may save what is in it, and "
        "`endmgr retry` ingests files again",
    )
