"""The private directory of a running manager, for sockets and other things that end with it."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import DbbError

MARK = "DBB_LEDGER"
"""The environment variable that every process of a manager carries: the id of its ledger."""
_ROOT = Path("/tmp")
"""Not `tempfile.gettempdir()`: the path of a socket may have 108 bytes, and ssh adds 17 of its own."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where it is, and whether the manager before this one left it behind: that one was killed."""

    path: Path
    was_left_behind: bool


@contextmanager
def runtime_directory(ledger_id: str) -> Iterator[Runtime]:
    """Make it, empty, for the one manager of a ledger; it goes when the manager ends.

    Raises
    ------
    DbbError
        Somebody else has made something of that name.
    """
    path = _ROOT / f"dbb-{os.getuid()}-{ledger_id}"
    try:
        path.mkdir(mode=0o700)
        was_left_behind = False
    except FileExistsError:
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise DbbError(
                f"{path} is not a private directory of this user", "find out who made it, and remove it"
            ) from None
        was_left_behind = True
    try:
        yield Runtime(path, was_left_behind)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def clear(directory: Path) -> None:
    """Remove all that a manager before this one left in it; to be called once its children are gone."""
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
