"""Opening a ledger: what is made, what is refused, and that what is refused is left alone."""

import ctypes
import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import LedgerError
from common.ledger import schema
from common.ledger.faults import LedgerBusy
from common.ledger.ledger import Ledger
from common.lifecycle import Lifecycle, Step
from handoff.lifecycle import LIFECYCLE
from tests.apart import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, apart, give_up, mount, own_namespaces
from tests.ledgers import NOW, carry, dump, found, open_ledger, states, take, write

_READ_ONLY = 1
_REMOUNT = 32


def leave(path: Path) -> dict[str, bytes]:
    """What is in a directory, to be compared."""
    return {file.name: file.read_bytes() for file in path.iterdir()}


def refusal(path: Path, lifecycle: Lifecycle = LIFECYCLE, *, create: bool = True) -> LedgerError:
    """The error that opening a ledger raises."""
    with pytest.raises(LedgerError) as caught:
        Ledger.open(path, lifecycle, create=create)
    assert (caught.value.exit_code, bool(caught.value.hint)) == (11, True)
    return caught.value


def test_a_ledger_is_made_with_the_directories_above_it(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "a" / "b" / "handoff.db", LIFECYCLE) as ledger:
        assert len(bytes.fromhex(ledger.id)) == 8
        assert ledger.totals() == ()


def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "handoff.db").touch()
    open_ledger(tmp_path).close()


def test_a_closed_ledger_is_one_file(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([found()], now_ms=NOW)
    assert [file.name for file in tmp_path.iterdir()] == ["handoff.db"]


def test_opening_it_again_changes_nothing(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([found()], now_ms=NOW)
        identity = ledger.id
    before = leave(tmp_path)
    with open_ledger(tmp_path) as ledger:
        assert ledger.id == identity
        assert states(ledger) == {b"a.fits": "found"}
    assert leave(tmp_path) == before


def test_a_ledger_that_is_open_can_be_opened_by_another_process(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as first, open_ledger(tmp_path) as second:
        first.record([found()], now_ms=NOW)
        assert len(take(second).entries) == 1


def test_a_missing_ledger_is_not_made_unasked(tmp_path: Path) -> None:
    assert "there is no ledger" in refusal(tmp_path / "a" / "handoff.db", create=False).message
    assert leave(tmp_path) == {}


def test_a_changed_lifecycle_brings_its_moves(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    longer = replace(LIFECYCLE, steps=(*LIFECYCLE.steps, Step("held", "archiving", "archived")))
    with Ledger.open(tmp_path / "handoff.db", longer) as ledger:
        ledger.record([found()], now_ms=NOW)
        carry(ledger, "light")
        assert take(ledger, longer.steps[-1]).entries[0].state == "archiving"


def make_original(path: Path) -> None:
    """A database as the original handoff manager makes it."""
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE files (id INTEGER PRIMARY KEY, relpath TEXT, filename TEXT, checksum TEXT)"
    )
    connection.execute("INSERT INTO files VALUES (1, '.', 'a.fits', 'abc')")
    connection.commit()
    connection.close()


def make_foreign(path: Path) -> None:
    """A database of another program."""
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA application_id = 77; CREATE TABLE t (c); PRAGMA journal_mode = WAL;")
    connection.close()


def make_text(path: Path) -> None:
    path.write_text("database:\n  engine: sqlite:////var/lib/dbb/handoff.db\n" * 9)


@pytest.mark.parametrize("make", [make_original, make_foreign, make_text])
def test_what_is_no_ledger_is_left_as_it_is(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "handoff.db")
    before = leave(tmp_path)
    error = refusal(tmp_path / "handoff.db")
    assert "Name a new file" in error.hint
    assert leave(tmp_path) == before


def test_a_directory_is_no_ledger(tmp_path: Path) -> None:
    assert "can't be written: Is a directory" in refusal(tmp_path).message


def test_a_file_can_not_hold_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "can't be" in refusal(tmp_path / "file" / "handoff.db").message


def test_another_kind_of_manager_is_refused(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    before = leave(tmp_path)
    error = refusal(tmp_path / "handoff.db", replace(LIFECYCLE, manager="endpoint"))
    assert "of the kind `handoff`, not `endpoint`" in error.message
    assert leave(tmp_path) == before


def test_a_newer_schema_is_left_as_it_is(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    write(tmp_path / "handoff.db", "PRAGMA user_version = 99")
    before = leave(tmp_path)
    assert "has schema version 99" in refusal(tmp_path / "handoff.db").message
    assert leave(tmp_path) == before


def test_a_newer_schema_is_seen_while_it_is_only_in_the_log(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        write(ledger.path, "PRAGMA user_version = 99")
        assert "has schema version 99" in refusal(ledger.path).message


@pytest.mark.parametrize("position", [100, 5000])
def test_a_corrupt_ledger_is_told_as_that(tmp_path: Path, position: int) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([found(b"%d" % number) for number in range(1000)], now_ms=NOW)
    with (tmp_path / "handoff.db").open("r+b") as file:
        file.seek(position)
        file.write(os.urandom(20_000))
    error = refusal(tmp_path / "handoff.db")
    assert "corrupt" in error.message
    assert "aside" in error.hint


def test_a_truncated_ledger_is_told_as_corrupt(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([found(b"%d" % number) for number in range(1000)], now_ms=NOW)
    os.truncate(tmp_path / "handoff.db", 40_000)
    assert "corrupt" in refusal(tmp_path / "handoff.db").message


def test_a_corruption_that_shows_later_is_told_as_that(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([found(b"%d" % number) for number in range(3000)], now_ms=NOW)
    size = (tmp_path / "handoff.db").stat().st_size
    with (tmp_path / "handoff.db").open("r+b") as file:
        file.seek(size // 2)
        file.write(os.urandom(size - size // 2))
    with open_ledger(tmp_path) as ledger, pytest.raises(LedgerError, match="corrupt"):
        take(ledger, limit=3000)


def test_a_locked_ledger_is_busy(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    other = sqlite3.connect(tmp_path / "handoff.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Ledger.open(tmp_path / "handoff.db", LIFECYCLE, busy_timeout=0.1) as ledger:
        with pytest.raises(LedgerBusy, match="another process"):
            ledger.record([found()], now_ms=NOW)
        other.close()
        assert ledger.record([found()], now_ms=NOW).added == 1


def refusal_for_lack_of_rights(directory: Path, target: str) -> tuple[str, str]:
    """What a process says that may not write the directory, or the file."""
    give_up(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)
    (directory / target).chmod(0o555 if target == "." else 0o444)
    error = refusal(directory / "handoff.db")
    return error.message, error.hint


@pytest.mark.parametrize("exists", [True, False])
def test_a_directory_that_can_not_be_written_is_told(tmp_path: Path, exists: bool) -> None:
    if exists:
        open_ledger(tmp_path).close()
    before = leave(tmp_path)
    message, hint = apart(refusal_for_lack_of_rights, tmp_path, ".")
    assert "the ledger can't be written" in message
    assert str(tmp_path) in hint
    assert leave(tmp_path) == before


def test_a_file_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    before = leave(tmp_path)
    message, _ = apart(refusal_for_lack_of_rights, tmp_path, "handoff.db")
    assert "the ledger can't be written" in message
    assert leave(tmp_path) == before


def refusals_of_a_read_only_disk(directory: Path) -> tuple[str, ...]:
    """What is said of a ledger, and of places for one, on a read-only disk; nothing where none can be had."""
    if not own_namespaces() or not mount("tmpfs", directory):
        return ()
    open_ledger(directory).close()
    if ctypes.CDLL(None).mount(b"tmpfs", os.fsencode(directory), b"tmpfs", _REMOUNT | _READ_ONLY, None):
        return ()
    before = leave(directory)
    told = tuple(
        refusal(path).message
        for path in (directory / "handoff.db", directory / "new.db", directory / "new" / "new.db")
    )
    assert leave(directory) == before
    return told


def test_a_read_only_disk_is_told(tmp_path: Path) -> None:
    for message in apart(refusals_of_a_read_only_disk, tmp_path):
        assert "can't be written" in message or "can't be made: Read-only file system" in message


def upgrade(path: Path, *scripts: str) -> None:
    """Bring a ledger to the version that has these scripts."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        schema.migrate(connection, path, LIFECYCLE, scripts)
    finally:
        connection.close()


@pytest.mark.parametrize("version", range(1, len(schema.migrations()) + 1))
def test_a_fresh_schema_equals_a_migrated_one(tmp_path: Path, version: int) -> None:
    scripts = schema.migrations()
    upgrade(tmp_path / "fresh.db", *scripts)
    upgrade(tmp_path / "older.db", *scripts[:version])
    upgrade(tmp_path / "older.db", *scripts)
    fresh, migrated = (
        [line for line in dump(tmp_path / name) if "'id'" not in line] for name in ("fresh.db", "older.db")
    )
    assert migrated == fresh


NEXT = "ALTER TABLE files ADD COLUMN colour TEXT;\nCREATE INDEX files_colour ON files (colour);\n"


def test_an_older_ledger_is_brought_up_to_date_with_all_that_is_in_it(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([found()], now_ms=NOW)
        identity = ledger.id
    upgrade(tmp_path / "handoff.db", *schema.migrations(), NEXT)
    assert f"INSERT INTO \"meta\" VALUES('id','{identity}');" in dump(tmp_path / "handoff.db")
    assert "has schema version" in refusal(tmp_path / "handoff.db").message


def test_a_migration_that_fails_leaves_the_older_version(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    before = dump(tmp_path / "handoff.db")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        upgrade(tmp_path / "handoff.db", *schema.migrations(), NEXT, "DROP TABLE lost;")
    assert dump(tmp_path / "handoff.db") == before
    open_ledger(tmp_path).close()


def test_a_sqlite_that_is_too_old_is_told() -> None:
    with pytest.raises(LedgerError, match=r"needs SQLite 3\.37\.0 or newer, and this Python has 3\.34\.1"):
        schema.require_sqlite((3, 34, 1))


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    names = sorted(file.name for file in (Path(schema.__file__).parent).glob("*.sql"))
    assert [int(name.split("_")[0]) for name in names] == list(range(1, len(names) + 1))
    assert len(names) == len(schema.migrations())


def test_where_directories_are_mounted_is_kept_for_the_next_manager(tmp_path: Path) -> None:
    for before, now in (({}, {b"/a \xff": b"/a \xff"}), ({b"/a \xff": b"/a \xff"}, {b"/b": b"/"})):
        with Ledger.open(tmp_path / "handoff.db", LIFECYCLE) as ledger:
            assert ledger.mount_points == before
            ledger.note_mount_points(now)
            assert ledger.mount_points == now
