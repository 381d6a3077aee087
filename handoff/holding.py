"""The holding area: where a local copy goes once its delivery is proven, beside all that is there."""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress

from common.entry import Done, Entry, Failed, Outcome
from common.errors import Failure, Scope
from common.files import BufferedFile, Checksum, Fence
from common.placing import flush_directory, move_exclusive, same_content
from common.settle import Closed, Probe
from common.wording import path as shown

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
        self._probe = Probe(buffer)

    def take(self, entries: Iterable[Entry]) -> tuple[Outcome, ...]:
        """Move each file, one outcome for each; what was done before a crash is found done."""
        touched: set[bytes] = set()
        outcomes = tuple(self._take(entry, touched) for entry in entries)
        for directory in touched:
            flush_directory(directory)
        return outcomes

    def _take(self, entry: Entry, touched: set[bytes]) -> Outcome:
        assert entry.checksum is not None, "a delivered file has been hashed"
        target = os.path.join(self._holding, entry.path)
        try:
            for name in (target, _versioned(target, entry.checksum)):
                change = self._change(entry)
                if change is not None:
                    return self._miss(entry, target, entry.checksum, change)
                if self._move(entry, name, entry.checksum, touched):
                    return Done(entry.id, "held", reason="" if name == target else f"held as {shown(name)}")
            raise FileExistsError(errno.EEXIST, "both of its names in the holding area have other content")
        except OSError as error:
            # A copy that did not come out the same, say, of a file that was written to meanwhile.
            with suppress(OSError):
                if change := self._change(entry):
                    return self._miss(entry, target, entry.checksum, change)
            return Failed(entry.id, _failure(error, entry))

    def _source(self, entry: Entry) -> bytes:
        return os.path.join(self._buffer, entry.path)

    def _change(self, entry: Entry) -> str | None:
        """What has been done to the local copy, or may be done as long as somebody has it open."""
        try:
            change = entry.fence.change(Fence.of(os.lstat(self._source(entry))))
        except (FileNotFoundError, NotADirectoryError):
            return "left the buffer"
        if change is None and self._probe.ask(BufferedFile(entry.path, entry.fence)) is Closed.NO:
            return "was opened for writing"
        return change

    def _miss(self, entry: Entry, target: bytes, known: Checksum, change: str) -> Done:
        """The local copy is not what was delivered: it is held already, or its new content is found again."""
        if self._is_held(target, known, entry.fence.size):
            return Done(entry.id, "held")
        return Done(entry.id, "vanished", reason=f"delivered, but {change} before it could be held")

    def _move(self, entry: Entry, name: bytes, known: Checksum, touched: set[bytes]) -> bool:
        """Whether the file is there now; false if other content has that name."""
        source = self._source(entry)
        os.makedirs(os.path.dirname(name), exist_ok=True)
        try:
            move_exclusive(source, name, known, lambda: self._change(entry) is None)
        except FileExistsError:
            if not same_content(name, known, entry.fence.size):
                return False
            # Delivered once more: this second copy may go, since the first has the same bytes.
            if self._change(entry) is None:
                os.unlink(source)
        else:
            touched.add(os.path.dirname(name))
        return True

    @staticmethod
    def _is_held(target: bytes, known: Checksum, size: int) -> bool:
        return any(same_content(name, known, size) for name in (target, _versioned(target, known)))


def _versioned(target: bytes, known: Checksum) -> bytes:
    """The name beside `target` for a version whose own name is taken by other content."""
    return target + b"." + known.digest[:12].encode()


def _failure(error: OSError, entry: Entry) -> Failure:
    reason = f"{shown(entry.path)} could not be moved to the holding area: {error.strerror or error}"
    known = _SITE_ERRORS.get(error.errno or 0)
    if known:
        return Failure(Scope.HANDOFF, known[0], reason, known[1])
    hint = "look at the two files, move one away, and `retry` it"
    return Failure(Scope.FILE, "cannot be held", reason, hint, transient=error.errno != errno.EEXIST)
