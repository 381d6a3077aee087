"""What keeps all files of an endpoint waiting costs none of them an attempt, and is over by itself."""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.archive import Archive, line
from tests.loopback import files_below, write_file
from tests.runs import Run, counts, eventually, rows
from tests.troubles import disk, fill, mount, unmount


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path / "archive")
    archive.write_config()
    return archive


def paused(archive: Archive) -> str:
    """What the manager says that it waits for."""
    return next((reason for (reason,) in rows(archive, "SELECT paused FROM manager")), "")


def assert_spared(archive: Archive, content: dict[bytes, bytes]) -> None:
    """All is in storage and in the catalogue, and no file was charged with what was not its fault."""
    eventually(lambda: counts(archive) == {"ingested": len(content)}, within=60)
    assert files_below(archive.storage) == content
    assert archive.catalogued() == sorted(content)
    assert rows(archive, "SELECT * FROM history WHERE target = 'failed'") == []


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A database that somebody else is writing to."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def test_a_locked_catalogue_keeps_files_waiting_until_it_is_free(archive: Archive) -> None:
    content = archive.deliver({b"first.dat": b"light"})
    assert archive.once() == 0
    with Run(archive) as manager:
        with locked(archive.catalogue):
            content |= archive.deliver({b"%d.dat" % number: b"dark" for number in range(30)})
            assert "catalogue" in eventually(lambda: paused(archive), within=60)
        assert_spared(archive, content)
        assert manager.stop() == 0


def test_a_corrupt_catalogue_is_told_and_left_as_it_is(archive: Archive) -> None:
    content = archive.deliver({b"first.dat": b"light"})
    assert archive.once() == 0
    good = archive.catalogue.read_bytes()
    bad = b"not a database" * 1000
    archive.catalogue.write_bytes(bad)
    for beside in archive.directory.glob("catalogue.db-*"):
        beside.unlink()
    with Run(archive) as manager:
        content |= archive.deliver({b"%d.dat" % number: b"dark" for number in range(30)})
        assert "catalogue.db" in eventually(lambda: paused(archive))
        assert archive.catalogue.read_bytes() == bad
        archive.catalogue.write_bytes(good)
        assert_spared(archive, content)
        assert manager.stop() == 0


def test_a_catalogue_that_was_moved_away_is_not_made_anew(archive: Archive) -> None:
    content = archive.deliver({b"first.dat": b"light"})
    assert archive.once() == 0
    aside = archive.catalogue.rename(archive.directory / "aside")
    told = f"{archive.catalogue}: is not there"
    checked = json.loads(archive.command("check", archive.config, "--canary", "--json").stdout)["results"]
    assert [one["name"] for one in checked if told in one["detail"]] == ["catalogue", "canary"]
    with Run(archive) as manager:
        eventually(lambda: told in manager.said)
        content |= archive.deliver({b"%d.dat" % number: b"dark" for number in range(3)}, note=None)
        assert told in eventually(lambda: paused(archive))
        assert not archive.catalogue.exists()
        aside.rename(archive.catalogue)
        assert_spared(archive, content)
        assert manager.stop() == 0


def test_a_catalogue_that_is_moved_away_from_the_manager_that_made_it_is_not_made_anew(
    archive: Archive,
) -> None:
    content = archive.deliver({b"first.dat": b"light"})
    with Run(archive) as manager:
        eventually(lambda: counts(archive) == {"ingested": 1})
        aside = archive.directory / "aside"
        aside.mkdir()
        for file in archive.directory.glob("catalogue.db*"):
            file.rename(aside / file.name)
        content |= archive.deliver({b"%d.dat" % number: b"dark" for number in range(3)}, note=None)
        eventually(lambda: "is not there" in paused(archive))
        assert not archive.catalogue.exists()
        for file in aside.iterdir():
            file.rename(archive.directory / file.name)
        assert_spared(archive, content)
        assert manager.stop() == 0


def test_a_read_only_catalogue_is_told(archive: Archive) -> None:
    content = archive.deliver({b"first.dat": b"light"})
    assert archive.once() == 0
    archive.catalogue.chmod(0o444)
    with Run(archive, powerless=True) as manager:
        content |= archive.deliver({b"%d.dat" % number: b"dark" for number in range(30)})
        assert "catalogue.db" in eventually(lambda: paused(archive))
        archive.catalogue.chmod(0o644)
        assert_spared(archive, content)
        assert manager.stop() == 0


@pytest.mark.usefixtures("disks")
def test_a_full_storage_keeps_files_waiting_until_there_is_space(archive: Archive) -> None:
    with disk(archive.storage, "size=8m"):
        ballast = fill(archive.storage, leave=100_000)
        with Run(archive) as manager:
            content = archive.deliver({b"%d.dat" % number: os.urandom(500_000) for number in range(6)})
            assert "storage" in eventually(lambda: paused(archive))
            ballast.unlink()
            assert_spared(archive, content)
            assert manager.stop() == 0


@pytest.mark.usefixtures("disks")
def test_a_file_that_is_larger_than_the_disk_keeps_no_others_waiting(archive: Archive) -> None:
    with disk(archive.storage, "size=1m"):
        archive.deliver({b"huge.dat": bytes(2 << 20)})
        content = archive.deliver({b"a.dat": b"light"}, note=None)
        assert archive.once() == 3
        assert files_below(archive.storage) == content
        assert counts(archive) == {"failed": 1, "ingested": 1}
        assert [failure["cause"] for failure in archive.status()["failures"]] == ["too large for the disk"]


@pytest.mark.usefixtures("disks")
def test_nothing_is_stored_below_the_free_space_that_is_to_be_kept(archive: Archive) -> None:
    archive.write_config(general={"min_free": "4MB"})
    with disk(archive.storage, "size=8m"):
        ballast = fill(archive.storage, leave=3_000_000)
        with Run(archive) as manager:
            content = archive.deliver({b"a.dat": os.urandom(100_000)})
            assert "min_free" in eventually(lambda: paused(archive))
            assert files_below(archive.storage).keys() == {b".ballast"}
            ballast.unlink()
            assert_spared(archive, content)
            assert manager.stop() == 0


@pytest.mark.usefixtures("disks")
def test_a_storage_that_is_not_mounted_any_more_is_waited_for(archive: Archive) -> None:
    mount(archive.storage, "-t", "tmpfs", "-o", "size=8m", "tmpfs")
    with Run(archive) as manager:
        eventually(lambda: rows(archive, "SELECT * FROM manager"))
        unmount(archive.storage)
        archive.deliver({b"a.dat": b"light"})
        assert "not mounted" in eventually(lambda: paused(archive))
        assert files_below(archive.buffer) == {b"a.dat": b"light"}
        assert list(archive.storage.iterdir()) == []
        with disk(archive.storage, "size=8m"):
            assert_spared(archive, {b"a.dat": b"light"})
            assert manager.stop() == 0


@pytest.mark.usefixtures("disks")
def test_a_storage_that_is_not_mounted_at_the_start_is_waited_for_as_one_that_was_there(
    archive: Archive,
) -> None:
    with disk(archive.storage, "size=8m"):
        assert archive.once() == 0
    archive.deliver({b"a.dat": b"light"})
    with Run(archive) as manager:
        assert "is not mounted as before" in eventually(lambda: paused(archive))
        assert list(archive.storage.iterdir()) == []
        with disk(archive.storage, "size=8m"):
            assert_spared(archive, {b"a.dat": b"light"})
            assert manager.stop() == 0


def test_without_the_directory_of_the_notes_nothing_is_taken_for_a_file_without_one(archive: Archive) -> None:
    away = archive.staging.with_name("away")
    with Run(archive) as manager:
        eventually(lambda: rows(archive, "SELECT * FROM manager"))
        archive.note("batch-0", line(b"a.dat", b"light"))
        archive.staging.rename(away)
        write_file(archive.buffer, b"a.dat", b"altered")
        assert "staging is not there" in eventually(lambda: paused(archive))
        away.rename(archive.staging)
        eventually(lambda: counts(archive) == {"rejected": 1}, within=60)
        assert manager.stop() == 0


def test_while_notes_can_not_be_read_nothing_is_taken_for_a_file_without_one(archive: Archive) -> None:
    notes = archive.staging / ".notes"
    notes.write_text("a file where their directory has to be")
    with Run(archive) as manager:
        write_file(archive.buffer, b"a.dat", b"altered")
        assert "delivery notes can't be read" in eventually(lambda: paused(archive))
        notes.unlink()
        archive.note("batch-0", line(b"a.dat", b"light"))
        eventually(lambda: counts(archive) == {"rejected": 1}, within=60)
        assert manager.stop() == 0


def test_a_note_that_others_may_not_read_keeps_files_waiting_until_it_is_read(archive: Archive) -> None:
    note = archive.note("batch-0", line(b"a.dat", b"light"))
    note.chmod(0o000)
    write_file(archive.buffer, b"a.dat", b"altered")
    with Run(archive, powerless=True) as manager:
        assert "batch-0.jsonl" in eventually(lambda: paused(archive))
        note.chmod(0o644)
        eventually(lambda: counts(archive) == {"rejected": 1}, within=60)
        assert manager.stop() == 0


def test_a_catalogue_that_fails_over_every_file_costs_none_an_attempt(archive: Archive) -> None:
    deadly, kept = archive.directory / "deadly", archive.directory / "kept"
    deadly.touch()
    config = {"path": str(kept), "deadly": str(deadly)}
    archive.write_config(ingester={"catalogue": "tests.catalogues:NastyCatalogue", "config": config})
    archive.deliver({b"%d.dat" % number: b"light %d" % number for number in range(5)})
    assert archive.once() == 3
    assert counts(archive) == {"stored": 5}
    assert "fails over every file, 5 in a row" in paused(archive)
    deadly.unlink()
    assert archive.once() == 0
    assert rows(archive, "SELECT state, attempts FROM files") == [("ingested", 0)] * 5


def write_nasty_config(archive: Archive) -> Path:
    """A catalogue that does what files are named; and crashes over all while there is what is given back."""
    deadly = archive.directory / "deadly"
    config = {"path": str(archive.directory / "kept"), "deadly": str(deadly)}
    archive.write_config(
        ingester={"catalogue": "tests.catalogues:NastyCatalogue", "config": config},
        general={"retry": {"attempts": 1}},
    )
    return deadly


def test_what_failed_over_a_broken_catalogue_one_by_one_is_ingested_once_it_is_mended(
    archive: Archive,
) -> None:
    """No process sees more than one file fail."""
    deadly = write_nasty_config(archive)
    deadly.touch()
    for number in range(3):
        archive.deliver({b"%d.dat" % number: b"light"}, note=f"batch-{number}")
        assert archive.once() == 3
    assert rows(archive, "SELECT state, cause FROM files") == [("failed", "catalogue in doubt")] * 3
    deadly.unlink()
    archive.deliver({b"new.dat": b"light"}, note="batch-3")
    assert archive.once() == 0
    assert counts(archive) == {"ingested": 4}
    again = "SELECT target FROM history WHERE reason LIKE 'tried once more%'"
    assert rows(archive, again) == [("stored",)] * 3


def test_a_file_that_is_bad_itself_is_tried_once_more_only_and_after_good_ones(archive: Archive) -> None:
    write_nasty_config(archive)
    archive.deliver({b"exit.dat": b"dark"})
    assert archive.once() == 3
    for night in range(2):
        good = {b"%d/%d.dat" % (night, number): b"light" for number in range(3)}
        archive.deliver(good, note=f"batch-{night}")
        assert archive.once() == 3
    assert rows(archive, "SELECT cause, attempts FROM files WHERE state = 'failed'") == [("crashed", 2)]
    ingesting = (
        "SELECT path FROM history JOIN files ON id = file_id WHERE target = 'ingesting' ORDER BY at, seq"
    )
    tried = [path for (path,) in rows(archive, ingesting)]
    assert (len(tried), [place for place, path in enumerate(tried) if path == b"exit.dat"]) == (8, [0, 4])


def test_files_that_the_catalogue_crashes_over_keep_no_good_ones_waiting(archive: Archive) -> None:
    nasty = {
        "catalogue": "tests.catalogues:NastyCatalogue",
        "config": {"path": str(archive.directory / "kept")},
    }
    archive.write_config(ingester={**nasty, "batch_size": 4}, general={"retry": {"attempts": 1}})
    bad = archive.deliver({b"exit.%d" % number: b"%d" % number for number in range(8)})
    for name in bad:
        # The oldest go first.
        os.utime(archive.buffer / os.fsdecode(name), (0, 0))
    good = archive.deliver({b"%d.dat" % number: b"light %d" % number for number in range(8)}, note="batch-1")
    with Run(archive) as manager:
        eventually(lambda: counts(archive) == {"ingested": len(good), "failed": len(bad)}, within=60)
        assert manager.stop() == 0
    assert "fails over every file" in manager.said


@pytest.mark.parametrize("closed", ["storage", "buffer"])
def test_a_directory_that_may_not_be_written_to_keeps_no_other_files_waiting(
    archive: Archive, closed: str
) -> None:
    archive.write_config(general={"retry": {"attempts": 1}})
    for top in (archive.storage, archive.buffer):
        (top / "closed").mkdir()
    content = archive.deliver({b"closed/a.dat": b"light"})
    directory = getattr(archive, closed) / "closed"
    directory.chmod(0o555)
    with Run(archive, powerless=True) as manager:
        eventually(lambda: counts(archive) == {"failed": 1})
        content |= archive.deliver({b"b.dat": b"dark"}, note=None)
        eventually(lambda: counts(archive) == {"failed": 1, "ingested": 1})
        assert [failure["cause"] for failure in archive.status()["failures"]] == ["may not be moved"]
        directory.chmod(0o755)
        assert archive.command("retry", archive.config).exit_code == 0
        eventually(lambda: counts(archive) == {"ingested": 2})
        assert manager.stop() == 0
    assert files_below(archive.storage) == content


def test_a_note_is_removed_as_soon_as_what_waited_for_storage_is_stored(archive: Archive) -> None:
    """It was looked at in vain meanwhile, and would be again after ten minutes."""
    archive.storage.chmod(0o555)
    content = archive.deliver({b"a.dat": b"light"})
    with Run(archive, powerless=True) as manager:
        assert "storage not writable" in eventually(lambda: paused(archive))
        assert archive.notes() == ["batch-0"]
        archive.storage.chmod(0o755)
        assert_spared(archive, content)
        eventually(lambda: archive.notes() == [])
        assert manager.stop() == 0


def test_notes_that_may_not_be_removed_are_told_and_keep_nothing_waiting(archive: Archive) -> None:
    """They are another account's, say, and so is their directory."""
    content = archive.deliver({b"a.dat": b"light"})
    notes = archive.staging / ".notes"
    notes.chmod(0o555)
    with Run(archive, powerless=True) as manager:
        assert_spared(archive, content)
        eventually(lambda: "delivery notes can't be removed" in manager.said)
        assert manager.stop() == 0
    notes.chmod(0o755)


def test_a_buffer_that_somebody_else_cleans_ends_nothing(archive: Archive) -> None:
    with Run(archive) as manager:
        for round_ in range(20):
            archive.deliver({b"%d/%d.dat" % (round_, number): os.urandom(9000) for number in range(40)})
            with suppress(OSError):
                shutil.rmtree(archive.buffer / str(round_))
        content = archive.deliver({b"last.dat": b"light"})
        eventually(lambda: b"last.dat" in archive.catalogued())
        eventually(lambda: set(counts(archive)) <= {"ingested", "vanished"})
        assert files_below(archive.storage).items() >= content.items()
        assert sorted(files_below(archive.storage)) == archive.catalogued()
        assert manager.stop() == 0


def test_a_second_manager_says_who_holds_the_ledger(archive: Archive) -> None:
    with Run(archive) as manager:
        eventually(lambda: rows(archive, "SELECT * FROM manager"))
        done = archive.command("start", archive.config)
        assert (done.exit_code, str(manager.process.pid) in done.stdout.decode()) == (0, True)
