"""Storage: where a verified file goes, atomically and never over another one."""

import errno
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress

from common.entry import Done, Entry, Failed, Outcome
from common.errors import Failure, Scope
from common.moving import Mover, site_failure
from common.placing import same_content
from common.wording import path as shown
from endpoint.lifecycle import STORE
from endpoint.premises import Premises
from endpoint.verification import conflict


class Storage:
    """Moves verified files out of the buffer; where there is no storage, they stay."""

    def __init__(self, premises: Premises) -> None:
        self._premises = premises

    def take(self, entries: Iterable[Entry]) -> tuple[Outcome, ...]:
        """Store each file, one outcome for each; what was done before a crash is found done."""
        if self._premises.storage is None:
            return tuple(Done(entry.id, STORE.target) for entry in entries)
        with Mover(self._premises.buffer) as mover:
            return tuple(self._take(entry, mover, self._premises.storage) for entry in entries)

    def _take(self, entry: Entry, mover: Mover, storage: bytes) -> Outcome:
        assert entry.checksum is not None, "a verified file has been hashed"
        target = os.path.join(storage, entry.path)
        try:
            change = mover.change(entry)
            if change is None and mover.move(entry, target):
                return Done(entry.id, STORE.target)
            if change is None:
                return conflict(entry, target, entry.checksum)
        except OSError as error:
            # A file that has changed is that, whatever else went wrong with it.
            change = None
            with suppress(OSError):
                change = mover.change(entry)
            if change is None:
                return Failed(entry.id, _failure(error, entry, (self._premises.buffer, storage)))
        # An earlier try may have come as far as that.
        if same_content(target, entry.checksum, entry.fence.size):
            return Done(entry.id, STORE.target)
        mover.abandon(entry, target)
        return Done(entry.id, "vanished", reason=f"verified, but {change} before it could be stored")


def _failure(error: OSError, entry: Entry, roots: Sequence[bytes]) -> Failure:
    reason = f"{shown(entry.path)} could not be moved to storage: {error.strerror or error}"
    if error.errno in (errno.ENOTDIR, errno.EISDIR):
        hint = "something that is no directory lies where one has to be: move it away, and `retry`"
        return Failure(Scope.FILE, "cannot be stored", reason, hint, transient=False)
    hint = "look at the log and at the disk"
    return site_failure(error, Scope.ENDPOINT, "storage", reason, roots=roots) or Failure(
        Scope.FILE, "cannot be stored", reason, hint
    )
