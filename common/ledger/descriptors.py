"""Whether this process has a file open, which decides whether it may open it once more."""

import os
from contextlib import suppress
from pathlib import Path


def is_open_here(path: Path) -> bool:
    """Whether any descriptor of this process belongs to that file.

    A POSIX record lock is lost as soon as its process closes *any* descriptor of the file. So a file
    that this process, or SQLite within it, may hold a lock on must not be opened and closed by hand.

    Raises
    ------
    OSError
        The file isn't there or can't be asked about.
    """
    status = os.stat(path)
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.path.samestat(os.fstat(int(name)), status):
                return True
    return False
