"""Putting files in place on real filesystems."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.files import Checksum, checksum
from common.placing import move_exclusive, rename_exclusive, same_content, temporary_beside

HOSTILE = b"a b\n$(touch x)\xff'\".fits"


@pytest.fixture
def source(tmp_path: Path) -> bytes:
    path = os.path.join(os.fsencode(tmp_path), HOSTILE)
    Path(os.fsdecode(path)).write_bytes(b"light")
    os.chmod(path, 0o640)
    os.utime(path, ns=(1, 1_500_000_000_123_456_789))
    return path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[bytes]:
    """A directory on another filesystem."""
    directory = Path("/dev/shm") / f"dbb-{os.getpid()}-{tmp_path.name}"
    assert os.stat("/dev/shm").st_dev != os.stat(tmp_path).st_dev
    directory.mkdir()
    yield os.fsencode(directory)
    for name in directory.iterdir():
        name.unlink()
    directory.rmdir()


def known(path: bytes) -> Checksum:
    return checksum(path, "sha256")[0]


def stays() -> bool:
    """What is asked before a copied file is removed: whether it has stayed what it was."""
    return True


def test_an_exclusive_rename_never_replaces(source: bytes, tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.write_bytes(b"other")
    with pytest.raises(FileExistsError):
        rename_exclusive(source, os.fsencode(target))
    assert (target.read_bytes(), Path(os.fsdecode(source)).read_bytes()) == (b"other", b"light")


def test_a_dangling_link_counts_as_a_file_that_is_there(source: bytes, tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        rename_exclusive(source, os.fsencode(target))


def test_a_move_across_filesystems_keeps_content_mode_and_time(source: bytes, elsewhere: bytes) -> None:
    target = os.path.join(elsewhere, b"moved")
    move_exclusive(source, target, known(source), stays)
    status = os.stat(target)
    assert Path(os.fsdecode(target)).read_bytes() == b"light"
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o640, 1_500_000_000_123_456_789)
    assert not os.path.lexists(source)
    assert os.listdir(elsewhere) == [b"moved"]


def test_a_move_across_filesystems_never_replaces(source: bytes, elsewhere: bytes) -> None:
    target = Path(os.fsdecode(elsewhere)) / "there"
    target.write_bytes(b"other")
    with pytest.raises(FileExistsError):
        move_exclusive(source, os.fsencode(target), known(source), stays)
    assert (target.read_bytes(), Path(os.fsdecode(source)).read_bytes()) == (b"other", b"light")


def test_a_copy_that_a_crash_left_behind_is_taken_over(source: bytes, elsewhere: bytes) -> None:
    target = os.path.join(elsewhere, b"moved")
    digest = known(source)
    Path(os.fsdecode(temporary_beside(target, digest))).write_bytes(b"half and much longer than the whole")
    move_exclusive(source, target, digest, stays)
    assert os.listdir(elsewhere) == [b"moved"]
    assert Path(os.fsdecode(target)).read_bytes() == b"light"


def test_a_copy_that_differs_from_what_was_delivered_is_refused(source: bytes, elsewhere: bytes) -> None:
    with pytest.raises(OSError, match="differs"):
        move_exclusive(source, os.path.join(elsewhere, b"moved"), Checksum("sha256", "0" * 64), stays)
    assert os.listdir(elsewhere) == []
    assert os.path.lexists(source)


def test_a_source_replaced_meanwhile_is_not_removed(source: bytes, elsewhere: bytes) -> None:
    move_exclusive(source, os.path.join(elsewhere, b"moved"), known(source), lambda: False)
    assert Path(os.fsdecode(source)).read_bytes() == b"light"


def test_same_content_means_same_size_and_digest_of_a_regular_file(source: bytes, tmp_path: Path) -> None:
    digest = known(source)
    link = os.fsencode(tmp_path / "link")
    os.symlink(source, link)
    assert same_content(source, digest, 5)
    assert not same_content(source, digest, 4)
    assert not same_content(link, digest, 5)
    assert not same_content(source + b".not", digest, 5)
