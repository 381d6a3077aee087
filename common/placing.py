"""Putting a file where it belongs: atomically, and never over another one."""

import ctypes
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress

from common.files import Checksum, checksum

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_MANY = 8
"""Beyond so many files one flush of their filesystem is cheaper: a file's takes 0.1 ms though it is clean."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def rename_exclusive(source: bytes, target: bytes) -> None:
    """Rename unless the target exists, in one step of the kernel (renameat2, Linux 3.15).

    Where the filesystem can't do it (NFS, say), a hard link and the removal of the old name do.

    Raises
    ------
    FileExistsError
        The target exists; nothing was touched.
    OSError
        Of it ``EXDEV``: they lie on two filesystems.
    """
    failed = _LIBC.renameat2(_AT_FDCWD, source, _AT_FDCWD, target, _RENAME_NOREPLACE)
    if not failed:
        return
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        os.link(source, target, follow_symlinks=False)
        os.unlink(source)
        return
    raise OSError(code, os.strerror(code), os.fsdecode(source), None, os.fsdecode(target))


def move_exclusive(source: bytes, target: bytes, known: Checksum, may_go: Callable[[], bool]) -> None:
    """Move a file unless the target exists, on one filesystem or across two.

    Across two it is copied beside the target, flushed, read back and compared, put in place
    exclusively, and only then removed at its source, if it still `may_go` after so long a time.

    Raises
    ------
    FileExistsError
        The target exists; nothing was touched.
    OSError
        Of it ``EIO`` with a message: the copy did not come out the same, and was removed.
    """
    try:
        rename_exclusive(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(target))
    temporary = temporary_beside(target, known)
    try:
        _copy(source, temporary)
        copied, _ = checksum(temporary, known.algorithm)
        if copied != known:
            raise OSError(errno.EIO, "the copy differs from the original", os.fsdecode(target))
        rename_exclusive(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    flush_directory(os.path.dirname(target))
    if may_go():
        os.unlink(source)


def temporary_beside(target: bytes, known: Checksum) -> bytes:
    """The name for an unfinished copy; the same one again after a crash, so that none is left."""
    name = hashlib.sha256(target + known.digest.encode()).hexdigest()[:32]
    return os.path.join(os.path.dirname(target), b".dbb-" + name.encode() + b".part")


def flush_directory(directory: bytes) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_files(files: Sequence[bytes], below: bytes) -> None:
    """Make files survive a power cut; many of them by flushing the filesystem that they lie on, `below`."""
    if len(files) > _MANY:
        _flush(below, _LIBC.syncfs)
    else:
        for file in files:
            with suppress(FileNotFoundError):
                _flush(file, _LIBC.fsync)


def _flush(path: bytes, flush: Callable[[int], int]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if flush(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), os.fsdecode(path))
    finally:
        os.close(descriptor)


def is_gone(path: bytes) -> bool:
    """Whether nothing is there; what can't be looked at may be there."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def same_content(path: bytes, known: Checksum, size: int) -> bool:
    """Whether a regular file with that size and digest is there."""
    try:
        status = os.lstat(path)
        return status.st_size == size and checksum(path, known.algorithm)[0] == known
    except OSError:
        return False


def _copy(source: bytes, target: bytes) -> None:
    """Copy content, mode and times, and flush them to the disk."""
    with (
        open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as old,
        open(target, "wb") as new,
    ):
        status = os.fstat(old.fileno())
        room = os.fstatvfs(new.fileno())
        if room.f_blocks * room.f_frsize < status.st_size:
            # No cleaning up will ever help this one, for which all others would wait.
            raise OSError(errno.EFBIG, "it is larger than the whole disk", os.fsdecode(target))
        if room.f_bavail * room.f_frsize < status.st_size:
            # Found out now, for a file of many gigabytes would be tried again and again.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(target))
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fchmod(new.fileno(), status.st_mode & 0o7777)
        os.utime(new.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(new.fileno())
