"""What is known of a file: its path, its fence, its checksum; and one streaming pass to hash it."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from typing import Literal

Algorithm = Literal["sha256", "blake2b"]


@dataclass(frozen=True, slots=True)
class Fence:
    """What the kernel says of a file's content; any write, truncation or replacement changes it."""

    inode: int
    size: int
    """In bytes."""
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Fence":
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def change(self, now: "Fence") -> str | None:
        """What has been done to the file since, in words; None if nothing has."""
        if now == self:
            return None
        if now.inode != self.inode:
            return "was replaced"
        if now.size != self.size:
            return "grew" if now.size > self.size else "shrank"
        # With its content and its size, the owner, the permissions or the names are all that is left.
        return "was written to" if now.mtime_ns != self.mtime_ns else "was touched"

    def __reduce__(self) -> tuple[type["Fence"], tuple[int, int, int, int]]:
        # Thousands go to workers and back: what dataclasses do for frozen, slotted ones is ten times slower.
        return Fence, (self.inode, self.size, self.mtime_ns, self.ctime_ns)


@dataclass(frozen=True, slots=True)
class Checksum:
    """A digest in lower-case hexadecimal and the algorithm that it was computed with."""

    algorithm: Algorithm
    digest: str

    def __reduce__(self) -> tuple[type["Checksum"], tuple[Algorithm, str]]:
        return Checksum, (self.algorithm, self.digest)


@dataclass(frozen=True, slots=True)
class BufferedFile:
    """A regular file in a buffer: its path below it, as bytes, and its fence when it was seen."""

    path: bytes
    fence: Fence


class Hashing:
    """One streaming pass over a file, a step at a time: iterate to the end, then take `result`."""

    _STEP = 2 << 20
    _AHEAD = 4 << 20

    def __init__(self, path: bytes, algorithm: Algorithm) -> None:
        self.path = path
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self._fence: Fence | None = None

    def __iter__(self) -> Iterator[memoryview]:
        """Hash two megabytes, which takes a millisecond or two; gives them, until the next step.

        Raises
        ------
        FileNotFoundError
            The file is gone, or something that is no regular file has its name.
        OSError
            It can't be read.
        """
        with _open_regular(self.path) as file:
            self._fence = Fence.of(os.fstat(file.fileno()))
            buffer = memoryview(bytearray(min(self._STEP, self._fence.size + 1)))
            done = 0
            while count := file.readinto(buffer):
                done += count
                if done < self._fence.size:
                    # The disk reads on while this is hashed; by itself the kernel is 128 kB ahead.
                    os.posix_fadvise(file.fileno(), done, self._AHEAD, os.POSIX_FADV_WILLNEED)
                self._hash.update(buffer[:count])
                yield buffer[:count]

    @property
    def result(self) -> tuple[Checksum, Fence]:
        """The checksum, and the fence of the bytes that were read."""
        if self._fence is None:
            raise ValueError(f"{self.path!r} has not been hashed yet")
        return Checksum(self._algorithm, self._hash.hexdigest()), self._fence


def checksum(path: bytes, algorithm: Algorithm) -> tuple[Checksum, Fence]:
    """Hash a file in one streaming pass; the fence is that of the bytes that were read.

    Raises
    ------
    OSError
        The file is gone, is no regular file or can't be read.
    """
    hashing = Hashing(path, algorithm)
    for _ in hashing:
        pass
    return hashing.result


def _open_regular(path: bytes) -> FileIO:
    # Opening a fifo would block; and with O_NONBLOCK a file that somebody has a lease on could not be opened.
    if stat.S_ISREG(os.lstat(path).st_mode):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return FileIO(descriptor)
        os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, "no regular file is there", os.fsdecode(path))
