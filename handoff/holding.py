"""The holding area: where a local copy goes once its delivery is proven, beside all that is there."""

import errno
import os
from collections.abc import Iterable

from common.entry import Done, Entry, Failed, Outcome
from common.errors import Failure, Scope
from common.files import Checksum, Fence
from common.placing import flush_directory, move_exclusive, same_content

_SITE_ERRORS = {
    errno.ENOSPC: ("holding area full", "free space in the holding area; it goes on by itself"),
    errno.EDQUOT: ("holding area over quota", "free space or raise the quota; it goes on by itself"),
    errno.EROFS: ("holding area read-only", "mount it for writing; it goes on by itself"),
    errno.EACCES: ("holding area not writable", "give the manager's user the right to write there"),
    errno.EPERM: ("holding area not writable", "give the manager's user the right to write there"),
    errno.EIO: ("input/output error", "look at the disk and the kernel log"),
}


class Holding:
    """Moves delivered files out of the buffer, never over another file.

    Parameters
    ----------
    buffer, holding
        Absolute paths of the two directories.
    """

    def __init__(self, buffer: bytes, holding: bytes) -> None:
        self._buffer = buffer
        self._holding = holding

    def take(self, entries: Iterable[Entry]) -> tuple[Outcome, ...]:
        """Move each file, one outcome for each; what was done before a crash is found done."""
        touched: set[bytes] = set()
        outcomes = tuple(self._take(entry, touched) for entry in entries)
        for directory in touched:
            flush_directory(directory)
        return outcomes

    def _take(self, entry: Entry, touched: set[bytes]) -> Outcome:
        assert entry.checksum is not None, "a delivered file has been hashed"
        source = os.path.join(self._buffer, entry.path)
        target = os.path.join(self._holding, entry.path)
        try:
            state = self._state_of(source, entry)
            if state == "there":
                os.makedirs(os.path.dirname(target), exist_ok=True)
                return self._move(source, target, entry, entry.checksum, touched)
            if self._is_held(target, entry.checksum, entry.fence.size):
                return Done(entry.id, "held")
            return Done(entry.id, "vanished", reason=f"delivered, but its local copy {state}")
        except OSError as error:
            return Failed(entry.id, _failure(error, entry))

    @staticmethod
    def _state_of(source: bytes, entry: Entry) -> str:
        try:
            same = Fence.of(os.lstat(source)) == entry.fence
        except (FileNotFoundError, NotADirectoryError):
            return "left the buffer before it could be held"
        return "there" if same else "was changed before it could be held; the new content is a new version"

    def _move(self, source: bytes, target: bytes, entry: Entry, known: Checksum, touched: set[bytes]) -> Done:
        for name in (target, _versioned(target, known)):
            try:
                move_exclusive(source, name, known, entry.fence)
                touched.add(os.path.dirname(name))
                break
            except FileExistsError:
                if same_content(name, known, entry.fence.size):
                    # Delivered once more: this second copy may go, since the first has the same bytes.
                    os.unlink(source)
                    break
        else:
            raise FileExistsError(errno.EEXIST, "both of its names in the holding area have other content")
        return Done(entry.id, "held", reason="" if name == target else f"held as {os.fsdecode(name)}")

    @staticmethod
    def _is_held(target: bytes, known: Checksum, size: int) -> bool:
        return any(same_content(name, known, size) for name in (target, _versioned(target, known)))


def _versioned(target: bytes, known: Checksum) -> bytes:
    """The name beside `target` for a version whose own name is taken by other content."""
    return target + b"." + known.digest[:12].encode()


def _failure(error: OSError, entry: Entry) -> Failure:
    shown = os.fsdecode(entry.path)
    reason = f"{shown!r} could not be moved to the holding area: {error.strerror or error}"
    known = _SITE_ERRORS.get(error.errno or 0)
    if known:
        return Failure(Scope.HANDOFF, known[0], reason, known[1])
    hint = "look at the two files, move one away, and `retry` it"
    return Failure(Scope.FILE, "cannot be held", reason, hint, transient=error.errno != errno.EEXIST)
