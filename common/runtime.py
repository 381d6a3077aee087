"""The private directory of a running manager, for sockets and other things that end with it."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import DbbError

MARK = "DBB_MANAGER"
"""The environment variable that a manager's workers carry, and all that they start: its mark."""
_SIGNATURE = "mark"
"""A link to that, which no full disk can hinder: by it is found what a killed manager left alive."""
_ROOT = Path("/tmp")
"""Not `tempfile.gettempdir()`: the path of a socket may have 108 bytes, and ssh adds 17 of its own."""
_FORGOTTEN = 3600.0
"""Seconds after which the next manager of a ledger has not come, and may never come."""
_PATIENCE = 2.0
"""Seconds within which others give the lock back: one that dies, or looks whether it is forgotten."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where it is, and whose it was."""

    path: Path
    left_by: str | None
    """The mark of the manager before this one, if that was killed and left it behind."""

    def sign(self, mark: str) -> None:
        """Put down the mark of this manager, once nothing of the one before it is left.

        Where that can't be (a disk without inodes), signals alone end what a killed manager leaves.
        """
        signature = self.path / _SIGNATURE
        with suppress(OSError):
            signature.unlink(missing_ok=True)
            signature.symlink_to(mark)


@contextmanager
def runtime_directory(ledger_id: str, root: Path = _ROOT) -> Iterator[Runtime]:
    """Make it, empty, for the one manager of a ledger; it goes when the manager ends.

    It is locked meanwhile, so that others see whether its manager lives. One that was left behind, and
    not signed since, stays what it is.

    Raises
    ------
    DbbError
        Somebody else has made something of that name, or uses it.
    """
    path = root / f"{_prefix()}{ledger_id}"
    descriptor, was_left_behind = _take(path)
    left_by = _signature(path) if was_left_behind else None
    try:
        yield Runtime(path, left_by)
    finally:
        if left_by is None or _signature(path) != left_by:
            shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def clear(directory: Path) -> None:
    """Remove all but the signature; to be called once no process uses it any more."""
    for entry in directory.iterdir():
        if entry.name == _SIGNATURE:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def remove_forgotten(living: Callable[[], Collection[str]], root: Path = _ROOT) -> int:
    """Remove the directories of managers of this user that were killed and never started again.

    Parameters
    ----------
    living
        Gives the marks that processes carry; asked once, if at all. What a manager left of which any
        live is for the next one of its ledger, which ends them.

    Returns how many there were.
    """
    alive: Collection[str] | None = None
    removed = 0
    for path in root.glob(f"{_prefix()}*"):
        with suppress(OSError, DbbError), _opened(path) as descriptor:
            if not _is_forgotten(descriptor):
                continue
            alive = living() if alive is None else alive
            if _signature(path) not in alive:
                shutil.rmtree(path)
                removed += 1
    return removed


def _signature(directory: Path) -> str:
    """The mark of the manager that it is or was of; empty if that was killed before it signed."""
    with suppress(OSError):
        return os.readlink(directory / _SIGNATURE)
    return ""


def _prefix() -> str:
    return f"dbb-{os.getuid()}-"


def _take(path: Path) -> tuple[int, bool]:
    """Make it or take it over, and lock it; whether it was there."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        was_there = False
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            was_there = True
        with suppress(FileNotFoundError), _opened(path) as descriptor:
            # Between the two it may have been removed, by one who held it for forgotten.
            if _lock(descriptor) and os.path.samestat(os.fstat(descriptor), path.lstat()):
                return os.dup(descriptor), was_there
        if time.monotonic() > deadline:
            raise DbbError(
                f"{path} is used by another manager",
                "is its ledger a copy of this one? Each manager needs one of its own",
            )
        time.sleep(0.05)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """It, open, if it is a private directory of this user."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (NotADirectoryError, PermissionError):
        raise _not_ours(path) from None
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise _not_ours(path)
        yield descriptor
    finally:
        os.close(descriptor)


def _not_ours(path: Path) -> DbbError:
    return DbbError(f"{path} is not a private directory of this user", "find out who made it, and remove it")


def _lock(descriptor: int) -> bool:
    """Lock it until it is closed, if nobody else has; the kernel takes the lock from one that dies."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_forgotten(descriptor: int) -> bool:
    """Whether its manager is dead, and the next one has not come for long."""
    return _lock(descriptor) and time.time() - os.fstat(descriptor).st_mtime > _FORGOTTEN
