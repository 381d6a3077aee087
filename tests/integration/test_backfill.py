"""What lies in storage is entered once, hashed only if it is not known, and never touched."""

import hashlib
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.entry import Done, Report
from common.files import Checksum, Fence
from common.ledger.ledger import Ledger
from common.ledger.rows import Found
from endpoint.backfill import Backfill, Tally
from endpoint.lifecycle import INGEST, LIFECYCLE, STORE, VERIFY
from tests.ledgers import NOW, assert_sound, rows
from tests.loopback import files_below, write_file


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    (tmp_path / "storage").mkdir()
    return tmp_path / "storage"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "endpoint.db", LIFECYCLE) as ledger:
        yield ledger
        assert_sound(ledger)


def _backfill(
    storage: Path,
    ledger: Ledger | None,
    *sources: bytes,
    exclude: tuple[str, ...] = (),
    dry_run: bool = False,
) -> tuple[Tally, list[str]]:
    told: list[str] = []
    work = Backfill(os.fsencode(storage), exclude, ledger, told.append)
    for _ in work.run(sources or (b"",), dry_run=dry_run):
        pass
    return work.tally, told


def _entries(ledger: Ledger) -> list[tuple[bytes, str, str]]:
    return rows(ledger, "SELECT path, state, lower(hex(digest)) FROM files ORDER BY path, id")


def _digest(content: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, content).hexdigest()


def _found(storage: Path, path: bytes, digest: str) -> Found:
    fence = Fence.of(os.lstat(os.path.join(os.fsencode(storage), path)))
    return Found(path, fence, Checksum("sha256", digest))


def _ingest(storage: Path, ledger: Ledger, path: bytes, content: bytes) -> None:
    """Have the ledger know a file as the manager leaves it: with the fence that it had in the buffer."""
    found = _found(storage, path, _digest(content))
    ledger.record([replace(found, fence=replace(found.fence, ctime_ns=1), checksum=None)], now_ms=NOW)
    for step in (VERIFY, STORE, INGEST):
        batch = ledger.claim(step, limit=9, max_bytes=10**9, worker=0, now_ms=NOW)
        assert batch
        outcomes = tuple(Done(entry.id, step.target, found.checksum) for entry in batch.entries)
        ledger.finish(batch, Report(outcomes), backoff=lambda _: None, now_ms=NOW)


def test_every_file_is_entered_with_its_digest_and_left_as_it_is(storage: Path, ledger: Ledger) -> None:
    names = [b"night/a.fits", b"two\nlines", b"\xfe\xff/\xfe", b"-rf", b"empty"]
    content = {name: name * 1000 for name in names} | {b"empty": b""}
    for name, data in content.items():
        write_file(storage, name, data)
    before = {name: Fence.of(os.lstat(os.path.join(os.fsencode(storage), name))) for name in content}
    tally, told = _backfill(storage, ledger)
    assert (tally.entered, tally.known, tally.troubles, told) == (5, 0, 0, [])
    assert _entries(ledger) == sorted((name, "backfilled", _digest(data)) for name, data in content.items())
    assert files_below(storage) == content
    assert before == {name: Fence.of(os.lstat(os.path.join(os.fsencode(storage), name))) for name in content}


def test_what_is_known_by_path_and_fence_is_not_hashed_again(storage: Path, ledger: Ledger) -> None:
    write_file(storage, b"a.fits", b"light")
    # Hashed again, it would turn out to be another version than this one.
    ledger.backfill("backfilled", [_found(storage, b"a.fits", "0" * 64)], now_ms=NOW)
    tally, told = _backfill(storage, ledger)
    assert (tally.entered, tally.known, told) == (0, 1, [])
    assert _entries(ledger) == [(b"a.fits", "backfilled", "0" * 64)]


def test_what_the_manager_stored_stays_as_it_is(storage: Path, ledger: Ledger) -> None:
    write_file(storage, b"a.fits", b"light")
    _ingest(storage, ledger, b"a.fits", b"light")
    before = rows(ledger, "SELECT * FROM files")
    tally, told = _backfill(storage, ledger)
    assert (tally.entered, tally.known, told) == (0, 1, [])
    assert rows(ledger, "SELECT * FROM files") == before


def test_a_touched_file_with_known_content_stays_as_it_is(storage: Path, ledger: Ledger) -> None:
    path = write_file(storage, b"a.fits", b"light")
    _ingest(storage, ledger, b"a.fits", b"light")
    os.utime(path, ns=(1, 1))
    tally, told = _backfill(storage, ledger)
    assert (tally.entered, tally.known, told) == (0, 1, [])
    assert _entries(ledger) == [(b"a.fits", "ingested", _digest(b"light"))]


def test_other_content_at_a_known_path_is_a_version_of_its_own_and_told(
    storage: Path, ledger: Ledger
) -> None:
    write_file(storage, b"a.fits", b"light")
    _ingest(storage, ledger, b"a.fits", b"light")
    write_file(storage, b"a.fits", b"other content")
    tally, told = _backfill(storage, ledger)
    assert (tally.entered, tally.known) == (1, 0)
    assert told == ["a.fits: entered beside versions with other content (ingested)"]
    assert [state for _, state, _ in _entries(ledger)] == ["ingested", "backfilled"]


def test_a_digest_of_another_algorithm_is_recognised(storage: Path, ledger: Ledger) -> None:
    write_file(storage, b"a.fits", b"light")
    found = _found(storage, b"a.fits", "")
    known = replace(
        found,
        fence=replace(found.fence, mtime_ns=7),
        checksum=Checksum("blake2b", _digest(b"light", "blake2b")),
    )
    ledger.backfill("backfilled", [known], now_ms=NOW)
    tally, told = _backfill(storage, ledger)
    assert (tally.entered, tally.known, told) == (0, 1, [])


def test_sources_choose_and_excluded_and_odd_files_are_left_alone(storage: Path, ledger: Ledger) -> None:
    for name in (b"a/1.fits", b"a/2.tmp", b"b/3.fits", b"c/4.fits"):
        write_file(storage, name, name)
    write_file(storage, b"a/.dbb-%s.part" % (b"0" * 32), b"half")
    (storage / "a" / "link").symlink_to("1.fits")
    with socket.socket(socket.AF_UNIX) as odd:
        odd.bind(str(storage / "a" / "socket"))
        tally, told = _backfill(storage, ledger, b"a", b"b/3.fits", b"a/link", exclude=(r"\.tmp$",))
    assert (tally.entered, tally.troubles) == (2, 0)
    assert tally.odd == 3
    assert told == ["a/link: left alone: it is excluded, or no regular file"]
    assert [path for path, _, _ in _entries(ledger)] == [b"a/1.fits", b"b/3.fits"]


def test_what_is_not_there_is_told_and_counted_and_the_rest_goes_on(storage: Path, ledger: Ledger) -> None:
    write_file(storage, b"a.fits", b"light")
    tally, told = _backfill(storage, ledger, b"none.fits", b"a.fits")
    assert (tally.entered, tally.troubles) == (1, 1)
    assert told == ["none.fits: can't be read: No such file or directory"]


def test_a_file_that_changes_while_it_is_hashed_is_left_out(storage: Path, ledger: Ledger) -> None:
    path = write_file(storage, b"a.fits", b"light" * 1_000_000)
    told: list[str] = []
    work = Backfill(os.fsencode(storage), (), ledger, told.append)
    turns = work.run((b"",))
    next(turns)
    with open(path, "ab") as file:
        file.write(b"more")
    for _ in turns:
        pass
    assert (work.tally.entered, work.tally.troubles) == (0, 1)
    assert told == ["a.fits: can't be read: it grew just now; run this again once it is left alone"]
    assert _backfill(storage, ledger)[0].entered == 1


def test_a_run_that_was_ended_goes_on_where_it_was(storage: Path, ledger: Ledger) -> None:
    for number in range(2500):
        write_file(storage, b"%d/%d" % (number % 3, number), b"%d" % number)
    turns = Backfill(os.fsencode(storage), (), ledger, print).run((b"",))
    while not _entries(ledger):
        next(turns)
    del turns
    done = len(_entries(ledger))
    assert 0 < done < 2500
    tally, _ = _backfill(storage, ledger)
    assert (tally.entered, tally.known) == (2500 - done, done)
    assert len(_entries(ledger)) == 2500


def test_a_dry_run_enters_nothing_and_needs_no_ledger(storage: Path, ledger: Ledger) -> None:
    for name in (b"a", b"b"):
        write_file(storage, name, name)
    assert _backfill(storage, None, dry_run=True)[0].entered == 2
    _backfill(storage, ledger, b"a")
    tally, _ = _backfill(storage, ledger, dry_run=True)
    assert (tally.entered, tally.known) == (1, 1)
    assert [path for path, _, _ in _entries(ledger)] == [b"a"]
