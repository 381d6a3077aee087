"""`finder.search: parse_rsync_logs`: what rsync has placed in storage is ingested where it lies."""

import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import pytest

from common.files import Fence
from common.process import run
from tests.archive import Archive
from tests.loopback import files_below, write_file
from tests.runs import Run, counts, eventually, rows, states

NAMES = [b"n/a.fits", b"n/a b.fits", b"n/two\nlines", b"n/\xfe\xff", b"-rf", b"n/$(reboot) 'q'", b"n/\\#134"]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path / "archive")
    (tmp_path / "source").mkdir()
    archive.write_config(
        finder={"search": "parse_rsync_logs", "delay": 0},
        ingester={"catalogue": "null", "config": None},
    )
    return archive


class Rsync:
    """A real rsync from a source into storage, with a log of today in what the configuration calls buffer."""

    def __init__(self, archive: Archive) -> None:
        self.source = archive.directory.parent / "source"
        self.storage = archive.storage
        self.day = archive.buffer / date.today().strftime("%Y%m%d")
        self.day.mkdir(exist_ok=True)

    def write(self, *names: bytes, content: bytes = b"light") -> dict[bytes, bytes]:
        for name in names:
            write_file(self.source, name, content + name)
        return {name: content + name for name in names}

    def copy(self, *options: str, name: str = "rsync.log", output: bool = False) -> None:
        """Copy the source into storage; the log is rsync's own or, with `output`, what it prints."""
        log = self.day / name
        argv = ["rsync", "-a", *options, *([] if output else [f"--log-file={log}"])]
        done = run([*argv, f"{self.source}/", f"{self.storage}/"], timeout=30)
        assert done.exit_code == 0, done.stderr
        if output:
            with open(log, "ab") as file:
                file.write(done.stdout)


@pytest.fixture
def rsync(archive: Archive) -> Rsync:
    return Rsync(archive)


def assert_ingested(archive: Archive, content: dict[bytes, bytes]) -> None:
    """Exactly these are ingested, and lie in storage untouched."""
    assert counts(archive) == {"ingested": len(content)}
    assert {path for (path,) in rows(archive, "SELECT path FROM files")} == set(content)
    assert content.items() <= files_below(archive.storage).items()


def fences(archive: Archive, paths: Iterable[bytes]) -> dict[bytes, Fence]:
    """What the kernel says of files in storage."""
    return {path: Fence.of(os.lstat(os.path.join(os.fsencode(archive.storage), path))) for path in paths}


def test_what_a_real_rsync_logs_is_ingested_and_stays(archive: Archive, rsync: Rsync) -> None:
    write_file(archive.storage, b"stranger.fits", b"no log names it")
    content = rsync.write(*NAMES)
    rsync.copy()
    before = fences(archive, content)
    logs = files_below(archive.buffer)
    for _ in range(2):
        assert archive.once() == 0
        assert_ingested(archive, content)
    assert fences(archive, content) == before
    assert files_below(archive.buffer) == logs


def test_what_rsync_prints_is_a_log_as_well(archive: Archive, rsync: Rsync) -> None:
    content: dict[bytes, bytes] = {}
    for number, form in enumerate(("%i %n%L", "%o %i %n", "%i %l %n", "%t %i %n", "%o %i %n %l")):
        content |= rsync.write(b"n/%d.fits" % number, b"\xfe/%d" % number)
        rsync.copy(f"--out-format={form}", name=f"rsync-{number}.log", output=True)
    assert archive.once() == 0
    assert_ingested(archive, content)


def test_hard_links_are_files(archive: Archive, rsync: Rsync) -> None:
    content = rsync.write(b"a.fits")
    (rsync.source / "b.fits").hardlink_to(rsync.source / "a.fits")
    rsync.copy("-H")
    assert archive.once() == 0
    assert_ingested(archive, content | {b"b.fits": content[b"a.fits"]})


def test_transfers_are_followed_while_the_manager_runs(archive: Archive, rsync: Rsync) -> None:
    with Run(archive) as manager:
        content = rsync.write(b"1.fits")
        rsync.copy()
        eventually(lambda: counts(archive) == {"ingested": 1})
        content |= rsync.write(b"2.fits")
        rsync.copy()
        eventually(lambda: counts(archive) == {"ingested": 2})
        (rsync.day / "rsync.log").rename(rsync.day / "rsync.log.1")
        content |= rsync.write(b"3.fits")
        rsync.copy()
        eventually(lambda: counts(archive) == {"ingested": 3})
        assert manager.stop() == 0
    assert_ingested(archive, content)


def test_nothing_is_lost_or_done_twice_when_the_manager_is_killed(archive: Archive, rsync: Rsync) -> None:
    content = rsync.write(*(b"n/%d.fits" % number for number in range(400)))
    rsync.copy()
    for _ in range(2):
        with Run(archive) as manager:
            before = counts(archive).get("ingested", 0)
            eventually(lambda: counts(archive).get("ingested", 0) > before)  # noqa: B023 - called at once
            manager.kill()
    assert archive.once() == 0
    assert_ingested(archive, content)


def test_a_file_that_is_not_there_is_told_once_and_ingested_when_it_comes(
    archive: Archive, rsync: Rsync
) -> None:
    content = rsync.write(b"here.fits", b"late.fits")
    rsync.copy()
    (archive.storage / "late.fits").rename(archive.directory / "elsewhere")
    with Run(archive) as manager:
        eventually(lambda: counts(archive) == {"ingested": 1} and "late.fits" in manager.said)
        (archive.directory / "elsewhere").rename(archive.storage / "late.fits")
        eventually(lambda: counts(archive) == {"ingested": 2})
        assert manager.stop() == 0
        [told] = [text for text in manager.said.splitlines() if "late.fits" in text]
    assert "it is not there, though the rsync log" in told
    assert_ingested(archive, content)


def test_a_file_that_is_sent_again_with_other_content_is_a_version_of_its_own(
    archive: Archive, rsync: Rsync
) -> None:
    rsync.write(b"a.fits")
    rsync.copy()
    assert archive.once() == 0
    rsync.write(b"a.fits", content=b"other light")
    rsync.copy()
    assert archive.once() == 0
    assert states(archive, b"a.fits") == ["ingested", "ingested"]


def test_what_was_backfilled_is_not_ingested_when_a_log_names_it(archive: Archive, rsync: Rsync) -> None:
    rsync.write(b"a.fits")
    rsync.copy()
    assert archive.command("backfill", archive.config).exit_code == 0
    assert archive.once() == 0
    assert counts(archive) == {"backfilled": 1}


def test_logs_may_lie_elsewhere_than_in_the_buffer(archive: Archive, rsync: Rsync, tmp_path: Path) -> None:
    content = rsync.write(b"a.fits")
    rsync.copy()
    archive.buffer.rename(tmp_path / "logs")
    archive.buffer.mkdir()
    archive.write_config(
        finder={"search": "parse_rsync_logs", "delay": 0, "source": str(tmp_path / "logs")},
        ingester={"catalogue": "null", "config": None},
    )
    assert archive.once() == 0
    assert_ingested(archive, content)


def test_check_looks_at_the_logs(archive: Archive, rsync: Rsync) -> None:
    done = archive.command("check", archive.config)
    assert f"the latest of {rsync.day.name}" in " ".join(done.stdout.decode().split())
    rsync.day.rmdir()
    done = archive.command("check", archive.config)
    assert done.exit_code == 5
    assert "has no logs of any day" in " ".join(done.stdout.decode().split())
