"""`endmgr backfill`: what is in storage already enters the ledger, beside a manager or without one."""

import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.archive import Archive
from tests.loopback import files_below, write_file
from tests.runs import Run, counts, eventually, states


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path / "archive")
    archive.write_config(ingester={"catalogue": "null", "config": None})
    return archive


def _backfill(archive: Archive, *words: str | Path) -> tuple[int, str]:
    done = archive.command("backfill", archive.config, *words)
    return done.exit_code, (done.stdout + done.stderr).decode()


def test_files_in_storage_are_entered_and_status_and_history_know_them(archive: Archive) -> None:
    content = {b"n/%d.fits" % number: b"%d" % number for number in range(20)}
    for name, data in content.items():
        write_file(archive.storage, name, data)
    assert _backfill(archive, "--dry-run") == (
        0,
        "20 files (30 B) would be hashed and entered, 0 known already\n",
    )
    assert not archive.ledger.exists()
    assert _backfill(archive) == (0, "20 files (30 B) entered as backfilled, 0 known already\n")
    assert _backfill(archive) == (0, "0 files (0 B) entered as backfilled, 20 known already\n")
    assert files_below(archive.storage) == content
    assert archive.status()["states"]["backfilled"] == {"files": 20, "bytes": 30}
    told = json.loads(archive.command("history", archive.config, "n/7.fits", "--json").stdout)
    assert told["versions"][0]["waits_for"] == "nothing: it is backfilled"
    assert archive.command("retry", archive.config, "n/7.fits").exit_code == 1
    assert archive.once() == 0
    assert counts(archive) == {"backfilled": 20}


def test_what_is_delivered_again_is_a_duplicate(archive: Archive) -> None:
    write_file(archive.storage, b"a.fits", b"light")
    assert _backfill(archive)[0] == 0
    archive.deliver({b"a.fits": b"light"})
    assert archive.once() == 0
    assert states(archive, b"a.fits") == ["backfilled", "duplicate"]
    assert files_below(archive.buffer) == {}
    assert archive.notes() == []


def test_a_duplicate_is_known_by_a_digest_of_another_algorithm(archive: Archive) -> None:
    write_file(archive.storage, b"a.fits", b"light")
    assert _backfill(archive)[0] == 0
    archive.deliver({b"a.fits": b"light"}, algorithm="blake2b", digest=hashlib.blake2b(b"light").hexdigest())
    assert archive.once() == 0
    assert states(archive, b"a.fits") == ["backfilled", "duplicate"]


def test_a_run_that_was_killed_goes_on_where_it_was(archive: Archive) -> None:
    for number in range(5000):
        write_file(archive.storage, b"%d/%d.fits" % (number % 7, number), b"%d" % number)
    with archive.start("backfill", archive.config) as process:
        eventually(lambda: counts(archive))
        process.kill()
    known = counts(archive)["backfilled"]
    _, told = _backfill(archive)
    assert told.startswith(f"{5000 - known:,} files (")
    assert told.endswith(f" entered as backfilled, {known:,} known already\n")
    assert counts(archive) == {"backfilled": 5000}


def test_other_content_under_a_backfilled_name_is_a_conflict(archive: Archive) -> None:
    write_file(archive.storage, b"a.fits", b"light")
    assert _backfill(archive)[0] == 0
    archive.deliver({b"a.fits": b"other"})
    assert archive.once() == 3
    assert states(archive, b"a.fits") == ["backfilled", "conflict"]
    assert files_below(archive.storage) == {b"a.fits": b"light"}


def test_it_works_while_the_manager_does(archive: Archive) -> None:
    for number in range(3000):
        write_file(archive.storage, b"old/%d.fits" % number, b"%d" % number)
    with Run(archive) as manager:
        eventually(archive.ledger.exists)
        archive.deliver({b"new/%d.fits" % number: b"%d" % number for number in range(200)})
        assert _backfill(archive, "old")[0] == 0
        eventually(lambda: counts(archive) == {"backfilled": 3000, "ingested": 200})
        assert _backfill(archive) == (0, "0 files (0 B) entered as backfilled, 3,200 known already\n")
        assert manager.stop() == 0


def test_a_source_elsewhere_is_an_error_and_nothing_is_entered(archive: Archive) -> None:
    write_file(archive.storage, b"a.fits", b"light")
    code, told = _backfill(archive, "a.fits", archive.buffer)
    assert code == 1
    assert "does not lie below storage" in told
    assert "hint" in told
    assert not archive.ledger.exists()


def test_what_can_not_be_found_is_told_and_others_go_on(archive: Archive) -> None:
    write_file(archive.storage, b"a.fits", b"light")
    assert _backfill(archive, "none", "a.fits") == (
        1,
        "none: can't be read: No such file or directory\n"
        "1 file (5 B) entered as backfilled, 0 known already, 1 could not be read\n",
    )


def test_what_can_not_be_read_is_told_and_others_go_on(archive: Archive) -> None:
    write_file(archive.storage, b"a.fits", b"light")
    write_file(archive.storage, b"b.fits", b"dark", mode=0)
    write_file(archive.storage, b"closed/c.fits", b"dark")
    (archive.storage / "closed").chmod(0)
    with archive.start("backfill", archive.config, prefix=_powerless()) as process:
        assert process.wait(30) == 1
    (archive.storage / "closed").chmod(0o755)
    told = archive.output.read_text()
    assert "b.fits: can't be read: Permission denied\n" in told
    assert "closed: can't be read: Permission denied\n" in told
    assert "1 file (5 B) entered as backfilled, 0 known already, 2 could not be read\n" in told


def test_on_a_terminal_there_is_a_bar(archive: Archive) -> None:
    write_file(archive.storage, b"a.fits", b"light" * 4_000_000)
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "endpoint", "backfill", str(archive.config)]
    with subprocess.Popen(argv, stdout=slave, stderr=slave, cwd=Path(__file__).parents[2]) as process:
        os.close(slave)
        said = b""
        while part := _read(master):
            said += part
        assert process.wait() == 0
    os.close(master)
    assert "━".encode() in said
    assert b"1 file (20.0 MB) entered as backfilled, 0 known already" in said


def test_help_has_an_example(archive: Archive) -> None:
    assert b"backfill" in archive.command("--help").stdout
    assert b"Example: endmgr backfill endpoint.yaml" in archive.command("backfill", "--help").stdout


def _read(terminal: int) -> bytes:
    """What the other end prints; nothing once it has closed the terminal."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


def _powerless() -> tuple[str, ...]:
    """For root alone: to lack its power over other people's permissions."""
    without = "-dac_override,-dac_read_search"
    drop = ("setpriv", f"--bounding-set={without}", f"--inh-caps={without}")
    return drop if os.geteuid() == 0 else ()
