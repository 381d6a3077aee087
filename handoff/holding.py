"""The holding area: where a local copy goes once its delivery is proven, beside all that is there."""

import errno
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress

from common.entry import Done, Entry, Failed, Outcome
from common.errors import Failure, Scope
from common.files import Checksum
from common.moving import Mover, site_failure
from common.placing import same_content
from common.wording import path as shown


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
        with Mover(self._buffer) as mover:
            return tuple(self._take(entry, mover) for entry in entries)

    def _take(self, entry: Entry, mover: Mover) -> Outcome:
        assert entry.checksum is not None, "a delivered file has been hashed"
        target = os.path.join(self._holding, entry.path)
        try:
            for name in (target, _versioned(target, entry.checksum)):
                change = mover.change(entry)
                if change is not None:
                    return self._miss(entry, mover, change)
                if mover.move(entry, name):
                    return Done(entry.id, "held", reason="" if name == target else f"held as {shown(name)}")
            raise FileExistsError(errno.EEXIST, "both of its names in the holding area have other content")
        except OSError as error:
            # A copy that did not come out the same, say, of a file that was written to meanwhile.
            with suppress(OSError):
                if change := mover.change(entry):
                    return self._miss(entry, mover, change)
            return Failed(entry.id, _failure(error, entry, (self._buffer, self._holding)))

    def _miss(self, entry: Entry, mover: Mover, change: str) -> Done:
        """The local copy is not what was delivered: it is held already, or its new content is found again."""
        assert entry.checksum is not None, "a delivered file has been hashed"
        target = os.path.join(self._holding, entry.path)
        names = (target, _versioned(target, entry.checksum))
        if any(same_content(name, entry.checksum, entry.fence.size) for name in names):
            return Done(entry.id, "held")
        for name in names:
            mover.abandon(entry, name)
        return Done(entry.id, "vanished", reason=f"delivered, but {change} before it could be held")


def _versioned(target: bytes, known: Checksum) -> bytes:
    """The name beside `target` for a version whose own name is taken by other content."""
    return target + b"." + known.digest[:12].encode()


def _failure(error: OSError, entry: Entry, roots: Sequence[bytes]) -> Failure:
    reason = f"{shown(entry.path)} could not be moved to the holding area: {error.strerror or error}"
    hint = "look at the two files, move one away, and `retry` it"
    return site_failure(error, Scope.HANDOFF, "holding area", reason, roots=roots) or Failure(
        Scope.FILE, "cannot be held", reason, hint, transient=error.errno != errno.EEXIST
    )
