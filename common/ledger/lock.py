"""One manager per ledger: a lock that dies with its process, and tells who holds it."""

import errno
import fcntl
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from common.errors import DbbError, LedgerError
from common.ledger.descriptors import is_open_here

_FLOCK = struct.Struct("@hhqqi0q")
"""``struct flock`` of Linux on 64 bits: type, whence, start, length, pid; padded at its end."""


class LedgerHeld(DbbError):  # noqa: N818 - it says what is the case
    """Another manager has this ledger."""

    exit_code: ClassVar[int] = 0

    def __init__(self, pid: int, ledger: Path) -> None:
        who = f"process {pid}" if pid > 0 else "in another container or on another host"
        super().__init__(f"a manager ({who}) already works with {ledger}")
        self.pid = pid
        """Not above 0 if it lives where its number can't be known."""


class ManagerLock:
    """The lock of a ledger: on the file ``<ledger>.lock``, which stays and says nothing by being there.

    It is a POSIX record lock: the kernel drops it when the process ends, however that may be, doesn't
    pass it on to children, and tells its holder.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take it.

        Raises
        ------
        LedgerHeld
            Another process has it.
        LedgerError
            The lock file can't be made or written.
        """
        path = lock_path(self._ledger)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            _lock(descriptor, path, self._ledger)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back; without effect if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lock_path(ledger: Path) -> Path:
    """The lock file of a ledger."""
    return ledger.with_name(ledger.name + ".lock")


def holder(ledger: Path) -> int | None:
    """The process that has this ledger (0: one in another container), without ever taking the lock.

    Raises
    ------
    LedgerError
        The lock file is there but can't be read.
    """
    path = lock_path(ledger)
    try:
        if is_open_here(path):
            return os.getpid()
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        return _holder(descriptor)
    except OSError as error:
        raise _unusable(path, error) from error
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, ledger: Path) -> None:
    """Lock the file, or tell who has."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise _unusable(path, error) from error
    else:
        return
    pid = _holder(descriptor)
    if pid is None:
        # It ended between the two questions.
        _lock(descriptor, path, ledger)
    else:
        raise LedgerHeld(pid, ledger)


def _holder(descriptor: int) -> int | None:
    """The process that keeps this one from locking; 0 if it lives where its number can't be known."""
    answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else pid


def _unusable(path: Path, error: OSError) -> LedgerError:
    return LedgerError(
        f"{path}: the ledger's lock can't be used: {error.strerror}",
        "It must be a file that the manager's user may write; is it another user's, or the disk read-only?",
    )
