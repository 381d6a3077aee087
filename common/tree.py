"""A directory tree whose directories are opened by name, and never through a symbolic link."""

import errno
import os
from types import TracebackType
from typing import Self

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Tree:
    """The open root of a tree; the root itself may be named by a link.

    While it is open its filesystem can't be unmounted, so it is opened for one look at a time.

    Raises
    ------
    OSError
        The root is not a directory that can be read.
    """

    def __init__(self, root: bytes) -> None:
        self._root = os.open(root, _DIRECTORY)
        try:
            self._place = _place(self._root)
        except OSError:
            os.close(self._root)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._root)

    def open(self, path: bytes) -> int:
        """Open the directory at a path below the root; an empty path is the root.

        Raises
        ------
        FileNotFoundError
            No directory is there, or the way to it leads over a link.
        OSError
            It is there and can't be read.
        """
        try:
            descriptor = os.open(path or b".", _DIRECTORY | os.O_NOFOLLOW, dir_fd=self._root)
        except NotADirectoryError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path)) from error
        try:
            # O_NOFOLLOW speaks of the last name in a path alone. Where the descriptor really leads,
            # the kernel knows; that needs no second system call for each name in the path.
            if path and _place(descriptor) != os.path.join(self._place, path):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor


def _place(descriptor: int) -> bytes:
    return os.readlink(b"/proc/self/fd/%d" % descriptor)
