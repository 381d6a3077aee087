"""Takes away empty directories that nobody has touched for long."""

import os
from contextlib import suppress

from common.tree import Tree

_SWEEPS_A_LIFE = 8
"""So often within the time after which empty directories expire they are swept."""


def sweep_every(older_than: float) -> float:
    """Seconds from one sweep to the next, of directories that expire after so many seconds.

    Each sweep lists every directory.
    """
    return min(3600.0, older_than / _SWEEPS_A_LIFE)


def sweep_empty_directories(root: bytes, *, older_than: float, now: float) -> tuple[bytes, ...]:
    """Remove directories below a root that are empty and were last changed over `older_than` seconds ago.

    One that has just lost its last directory was changed by that, and waits for its own time.
    Links are not followed, the root stays, and one that is filled at the last moment is kept by
    the kernel. What can't be read or removed is left: the scan and `check` tell of it.

    Parameters
    ----------
    now
        Seconds since the epoch.

    Returns
    -------
    The paths of those removed, relative to the root.
    """
    removed: list[bytes] = []
    with suppress(OSError), Tree(root) as tree:
        pending = [b""]
        while pending:
            directory = pending.pop()
            with suppress(OSError):
                below, old = _examine(tree, directory, now - older_than)
                pending += below
                if old and directory:
                    _remove(tree, directory)
                    removed.append(directory)
    return tuple(removed)


def _examine(tree: Tree, directory: bytes, limit: float) -> tuple[list[bytes], bool]:
    """The directories in it, and whether it is empty and was last changed before `limit`."""
    descriptor = tree.open(directory)
    try:
        below: list[bytes] = []
        empty = True
        with os.scandir(descriptor) as entries:
            for entry in entries:
                empty = False
                if entry.is_dir(follow_symlinks=False):
                    below.append(os.path.join(directory, os.fsencode(entry.name)))
        return below, empty and os.fstat(descriptor).st_mtime < limit
    finally:
        os.close(descriptor)


def _remove(tree: Tree, directory: bytes) -> None:
    parent, name = os.path.split(directory)
    descriptor = tree.open(parent)
    try:
        os.rmdir(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
