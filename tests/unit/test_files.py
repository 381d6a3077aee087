"""Fences and checksums."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from common.entry import Done, Entry
from common.files import Algorithm, Checksum, Fence, Hashing, checksum


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    path = tmp_path / "image"
    path.write_bytes(os.urandom(5_000_000))
    return os.fsencode(path)


@pytest.mark.parametrize("algorithm", ["sha256", "blake2b"])
@pytest.mark.parametrize("size", [0, 1, 2 << 20, 5_000_000])
def test_the_digest_is_that_of_the_whole_file(tmp_path: Path, algorithm: Algorithm, size: int) -> None:
    path = tmp_path / "image"
    path.write_bytes(os.urandom(size))
    digest = hashlib.new(algorithm, path.read_bytes()).hexdigest()
    assert checksum(os.fsencode(path), algorithm) == (Checksum(algorithm, digest), Fence.of(path.stat()))


def test_hashing_goes_in_steps_and_has_a_result_in_the_end(image: bytes) -> None:
    hashing = Hashing(image, "sha256")
    with pytest.raises(ValueError, match="not been hashed"):
        _ = hashing.result
    assert [len(chunk) for chunk in hashing] == [2 << 20, 2 << 20, 5_000_000 - (4 << 20)]
    assert hashing.result == checksum(image, "sha256")


def test_a_symbolic_link_is_not_hashed(image: bytes, tmp_path: Path) -> None:
    link = os.fsencode(tmp_path / "link")
    os.symlink(image, link)
    with pytest.raises(OSError, match="no regular file"):
        checksum(link, "sha256")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_hashed_and_does_not_block(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "odd")
    with pytest.raises(FileNotFoundError, match="no regular file"):
        checksum(os.fsencode(tmp_path / "odd"), "sha256")


def test_what_goes_to_workers_and_back_comes_out_the_same() -> None:
    fence = Fence(1, 2, 3, 4)
    known = Checksum("sha256", "0" * 64)
    entry = Entry(7, b"a\xff", fence, known, "sending", attempts=1, claims=2)
    for value in (fence, known, entry, Done(7, "held", known, fence, "why")):
        assert pickle.loads(pickle.dumps(value)) == value
