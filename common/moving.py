"""Taking files out of a buffer: unchanged ones alone, and never over another file."""

import errno
import os
from collections.abc import Sequence
from contextlib import suppress

from common.entry import Entry
from common.errors import Failure, Scope
from common.files import BufferedFile, Fence
from common.placing import flush_directory, move_exclusive, same_content, temporary_beside
from common.settle import Closed, Probe

_DENIED = (errno.EACCES, errno.EPERM)
_CURES = {
    errno.ENOSPC: ("full", "free space there; it goes on by itself"),
    errno.EDQUOT: ("over quota", "free space or raise the quota; it goes on by itself"),
    errno.EROFS: ("read-only", "mount it for writing; it goes on by itself"),
    errno.EACCES: ("not writable", "give the manager's user the right to write there"),
    errno.EPERM: ("not writable", "give the manager's user the right to write there"),
}


class Mover:
    """Moves files out of a buffer. A context manager: what it has moved is durable when the context ends.

    A process that moves must ignore SIGIO, as `Probe` says.
    """

    def __init__(self, buffer: bytes) -> None:
        self._buffer = buffer
        self._probe = Probe(buffer)
        self._touched: set[bytes] = set()

    def __enter__(self) -> "Mover":
        return self

    def __exit__(self, *_: object) -> None:
        for directory in self._touched:
            flush_directory(directory)

    def change(self, entry: Entry) -> str | None:
        """What has been done to the file, or may be done as long as somebody has it open; None: nothing."""
        try:
            change = entry.fence.change(Fence.of(os.lstat(self._source(entry))))
        except (FileNotFoundError, NotADirectoryError):
            return "left the buffer"
        if change is None and self._probe.ask(BufferedFile(entry.path, entry.fence)) is Closed.NO:
            return "was opened for writing"
        return change

    def move(self, entry: Entry, target: bytes) -> bool:
        """Whether the file's content is there now; false if other content has that name.

        Where the same content is there already, the copy in the buffer goes.

        Raises
        ------
        OSError
            It could not be moved; nothing is lost.
        """
        assert entry.checksum is not None, "a file that is moved has been hashed"
        source = self._source(entry)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            move_exclusive(source, target, entry.checksum, lambda: self.change(entry) is None)
        except FileExistsError:
            if not same_content(target, entry.checksum, entry.fence.size):
                return False
            self.discard(entry)
        else:
            self._touched.add(os.path.dirname(target))
        return True

    def discard(self, entry: Entry) -> None:
        """Remove a second copy of what is safe elsewhere, if it is still what it was."""
        if self.change(entry) is None:
            os.unlink(self._source(entry))

    def abandon(self, entry: Entry, target: bytes) -> None:
        """Remove the unfinished copy that a killed try may have left of a file that is gone."""
        assert entry.checksum is not None, "a file that is moved has been hashed"
        with suppress(OSError):
            os.unlink(temporary_beside(target, entry.checksum))

    def _source(self, entry: Entry) -> bytes:
        return os.path.join(self._buffer, entry.path)


def site_failure(
    error: OSError, scope: Scope, called: str, reason: str, *, roots: Sequence[bytes]
) -> Failure | None:
    """A failure of the disk that was written to, if it is one: it keeps all files waiting, as a rule.

    Parameters
    ----------
    called
        What an operator calls the directory on it.
    roots
        What files are moved from, and what to. Where the manager may write to these, it lacks the right to
        some directory below, which keeps no other files waiting.
    """
    if error.errno == errno.EIO:
        return Failure(scope, "input/output error", reason, "look at the disk and the kernel log")
    if error.errno == errno.EFBIG:
        hint = "enlarge the disk that it goes to, or move the file away; then `retry` it"
        return Failure(Scope.FILE, "too large for the disk", reason, hint, transient=False)
    if error.errno in _DENIED and all(os.access(root, os.W_OK | os.X_OK) for root in roots):
        hint = "let the manager's user write to its directory, where it is and where it goes"
        return Failure(Scope.FILE, "may not be moved", reason, hint)
    known = _CURES.get(error.errno or 0)
    return Failure(scope, f"{called} {known[0]}", reason, known[1]) if known else None
