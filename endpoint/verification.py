"""What arrived is read and compared: with what the origin says of it, and with what is stored."""

import errno
import os
from contextlib import suppress
from dataclasses import dataclass

from common.entry import Batch, Done, Entry, Failed, Outcome
from common.errors import Failure, Scope, unreadable
from common.files import Algorithm, Checksum, Fence, checksum
from common.ledger.rows import Origin
from common.placing import flush_files, same_content
from common.pool import Tell
from common.wording import instant
from common.wording import path as shown
from endpoint.lifecycle import VERIFY
from endpoint.notes import Notes
from endpoint.premises import ALGORITHM, Premises

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True, slots=True)
class Findings:
    """What verifying a batch has brought beside the outcomes."""

    malformed: tuple[str, ...] = ()
    """What is wrong with lines of notes that make no sense."""
    origins: tuple[Origin, ...] = ()
    """Of files that are what a note says, or were to be."""


class Verification:
    """Verifies one batch. Each file gets an outcome of its own, whatever happens to the others."""

    def __init__(self, premises: Premises, notes: Notes, tell: Tell) -> None:
        self._premises = premises
        self._notes = notes
        self._tell = tell
        self._origins: list[Origin] = []
        self._strange: list[Entry] = []
        """Of which no note tells: what hdfmgr delivers, it has flushed; of others nobody knows."""

    def take(self, batch: Batch) -> tuple[tuple[Outcome, ...], Findings]:
        """Hash every file and judge it. A duplicate is told with its checksum; the copy may go at once."""
        try:
            malformed = self._notes.refresh()
        except OSError as error:
            failure = _notes_unreadable(error)
            return tuple(Failed(entry.id, failure) for entry in batch.entries), Findings()
        outcomes: list[Outcome] = []
        done = 0
        for entry in batch.entries:
            outcomes.append(self._judge(entry))
            done += entry.fence.size
            self._tell("verify", done)
        return self._flushed(outcomes), Findings(malformed, tuple(self._origins))

    def _flushed(self, outcomes: list[Outcome]) -> tuple[Outcome, ...]:
        """The outcomes, once strangers' files are on the disk; where that fails, theirs are that."""
        buffer = self._premises.buffer
        try:
            flush_files([os.path.join(buffer, entry.path) for entry in self._strange], buffer)
        except OSError as error:
            reason = f"what lies in the buffer can't be flushed to its disk: {error.strerror}"
            hint = "look at the disk and the kernel log"
            failure = Failure(Scope.ENDPOINT, "input/output error", reason, hint)
            strange = {entry.id for entry in self._strange}
            outcomes = [Failed(o.entry_id, failure) if o.entry_id in strange else o for o in outcomes]
        return tuple(outcomes)

    def _judge(self, entry: Entry) -> Outcome:
        told = self._notes.of(entry.path)
        source = os.path.join(self._premises.buffer, entry.path)
        try:
            change = entry.fence.change(Fence.of(os.lstat(source)))
            if change:
                return _changed(entry, change)
            known = entry.checksum.algorithm if entry.checksum else ALGORITHM
            digests: dict[Algorithm, Checksum] = {}
            for algorithm in dict.fromkeys(origin.checksum.algorithm for origin in told) or (known,):
                digests[algorithm], fence = checksum(source, algorithm)
                if change := entry.fence.change(fence):
                    return _changed(entry, change)
        except OSError as error:
            return self._gone_as_duplicate(entry, told, error) or _unreadable(entry, error)
        return self._compare(entry, told, digests)

    def _gone_as_duplicate(self, entry: Entry, told: tuple[Origin, ...], error: OSError) -> Outcome | None:
        """A try that was killed may have removed a duplicate before that could be written down.

        It is told with its checksum: if the ledger does not know of what is stored, it goes on.
        """
        storage = self._premises.storage
        if error.errno != errno.ENOENT or entry.claims == 1 or storage is None:
            return None
        target = os.path.join(storage, entry.path)
        with suppress(OSError):
            if os.lstat(target).st_size != entry.fence.size:
                return None
            expected: list[Checksum | None] = [origin.checksum for origin in told] or [entry.checksum]
            for known in expected:
                found, fence = checksum(target, known.algorithm if known else ALGORITHM)
                if fence.size == entry.fence.size and known in (None, found):
                    self._origins += [origin for origin in told if origin.checksum == found]
                    reason = "gone since an earlier try, as what is stored already goes"
                    return Done(entry.id, "duplicate", found, entry.fence, reason)
        return None

    def _compare(self, entry: Entry, told: tuple[Origin, ...], digests: dict[Algorithm, Checksum]) -> Outcome:
        """Decide by the digests of a file and what notes say of its path."""
        origin = next((origin for origin in told if _agrees(origin, entry, digests)), None)
        if told and origin is None:
            found = digests[told[0].checksum.algorithm]
            return self._duplicate(entry, found) or _rejected(entry, told[0], found)
        if origin is not None:
            self._origins.append(origin)
        elif self._premises.require_note:
            # What was stored before had its note.
            return self._duplicate(entry, next(iter(digests.values()))) or _without_note(entry)
        found = origin.checksum if origin else next(iter(digests.values()))
        return self._compare_with_storage(entry, told, found)

    def _compare_with_storage(self, entry: Entry, told: tuple[Origin, ...], found: Checksum) -> Outcome:
        storage = self._premises.storage
        target = None if storage is None else os.path.join(storage, entry.path)
        if target is None or not os.path.lexists(target):
            if not told:
                self._strange.append(entry)
            return Done(entry.id, VERIFY.target, found, entry.fence)
        return self._duplicate(entry, found) or conflict(entry, target, found)

    def _duplicate(self, entry: Entry, found: Checksum) -> Done | None:
        """The outcome for a second copy of what is stored, whatever notes say of others of its name."""
        storage = self._premises.storage
        if storage is None or not same_content(os.path.join(storage, entry.path), found, entry.fence.size):
            return None
        if self._premises.on_duplicate == "delete":
            self._discard(entry)
        return Done(entry.id, "duplicate", found, entry.fence, "the same content is stored already")

    def _discard(self, entry: Entry) -> None:
        """Remove the second copy of what is stored; one that can't be removed, or has changed, stays."""
        source = os.path.join(self._premises.buffer, entry.path)
        with suppress(OSError):
            if entry.fence.change(Fence.of(os.lstat(source))) is None:
                os.unlink(source)


def conflict(entry: Entry, target: bytes, found: Checksum) -> Done:
    """The outcome for a file whose name in storage is taken by other content."""
    reason = f"{shown(entry.path)}: {shown(target)} has other content; neither was touched"
    return Done(entry.id, "conflict", found, entry.fence, reason)


def _agrees(origin: Origin, entry: Entry, digests: dict[Algorithm, Checksum]) -> bool:
    return origin.size == entry.fence.size and digests[origin.checksum.algorithm] == origin.checksum


def _rejected(entry: Entry, origin: Origin, found: Checksum) -> Done:
    reason = (
        f"{shown(entry.path)}: has {entry.fence.size:,} bytes with {found.algorithm} {found.digest}; "
        f"the delivery note {shown(origin.note)} of {instant(origin.sent_at)} says {origin.size:,} bytes "
        f"with {origin.checksum.digest}"
    )
    return Done(entry.id, "rejected", found, entry.fence, reason)


def _without_note(entry: Entry) -> Failed:
    reason = f"{shown(entry.path)}: no delivery note names it, and endpoint.require_note wants one"
    hint = "find out who put it into the buffer; `retry` it once its note is there"
    return Failed(entry.id, Failure(Scope.FILE, "no delivery note", reason, hint))


def _notes_unreadable(error: OSError) -> Failure:
    """What keeps all files waiting, for each of them may be another than its note says."""
    place = shown(os.fsencode(error.filename)) if error.filename else "delivery notes"
    reason = f"{place}: {error.strerror or error}"
    hint = "give the manager's user the right to read delivery notes, or look at the disk"
    return Failure(Scope.ENDPOINT, "delivery notes can't be read", reason, hint)


def _changed(entry: Entry, change: str) -> Done:
    return Done(entry.id, "vanished", reason=f"{change} before it could be verified")


def _unreadable(entry: Entry, error: OSError) -> Outcome:
    if error.errno in _GONE:
        return _changed(entry, "left the buffer")
    return Failed(entry.id, unreadable(shown(entry.path), error.strerror))
