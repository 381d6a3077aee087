"""Whether a file is finished: closed by whoever wrote it, and left unchanged for a while.

On a local filesystem the kernel knows whether a file is closed: it grants a read lease only when
nobody has the file open for writing (or mapped writable), under whichever of its names. A file
that is proven closed is as old as its change time, which nobody can set. Where nothing can be
proven (shared filesystems, files of another owner without CAP_LEASE, files that can't be opened),
and where the change time lies in the future, the file must look the same at two looks that lie far
enough apart by a monotonic clock.
"""

import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from common.files import BufferedFile, Fence
from common.mounts import filesystem, is_shared

if TYPE_CHECKING:  # workers judge no scans
    from common.scan import Source

_CAUTIOUSLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PASSING = (
    # It is not there (any more), or something else is, or there is no room to open it now.
    *(errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)
_SOON = 0.1
"""Seconds after which a file is looked at again that changed under our eyes, or is just being made."""


class Closed(Enum):
    """What can be known of whether somebody may still write to a file."""

    YES = auto()
    NO = auto()
    UNKNOWN = auto()
    MOOT = auto()
    """It is not there any more, or not as it was."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of a judgement; files that are neither are looked at `again`."""

    settled: tuple[BufferedFile, ...] = ()
    open: tuple[BufferedFile, ...] = ()
    """Somebody has them open for writing. Their closing is an event; else the next walk sees them again."""


@dataclass(frozen=True, slots=True)
class _Look:
    """An unsettled file as it was first seen in its present shape. Times are by the monotonic clock."""

    fence: Fence
    first: float
    due: float
    """When it may have settled."""


class Settling:
    """Judges which files have settled, and remembers those that have not.

    A process that judges must ignore SIGIO, as `Probe` says.

    Parameters
    ----------
    settle
        Seconds for which a file must have been left unchanged; with 0 it is enough that it is
        closed, as far as can be known.
    """

    def __init__(
        self,
        scanner: "Source",
        *,
        settle: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._scanner = scanner
        self._settle = settle
        self._clock = clock
        self._wall = wall
        self._unsettled: dict[bytes, _Look] = {}

    def judge(self, files: Iterable[BufferedFile], *, moved_in: Container[bytes] = ()) -> Judged:
        """Judge files as they have just been seen, of which the ledger knows nothing yet.

        `moved_in` holds the paths that were renamed into their place: such a file is complete
        unless it is known to be open.
        """
        if signal.getsignal(signal.SIGIO) is signal.SIG_DFL:
            raise RuntimeError("SIGIO must be ignored where leases are asked for")
        probe = Probe(self._scanner.root)
        settled: list[BufferedFile] = []
        still_open: list[BufferedFile] = []
        for file in files:
            now = self._clock()
            whole = file.path in moved_in
            look = self._unsettled.get(file.path)
            if look is None or look.fence != file.fence:
                look = _Look(file.fence, now, now)
            if now < look.due and not whole:
                continue
            self._unsettled.pop(file.path, None)
            closed = probe.ask(file)
            wait = self._wait(file, closed, now - look.first, whole=whole)
            if closed is Closed.NO:
                still_open.append(file)
            elif wait <= 0:
                settled.append(file)
            else:
                self._unsettled[file.path] = _Look(file.fence, look.first, now + wait)
        return Judged(tuple(settled), tuple(still_open))

    def again(self, limit: int = 1000) -> Judged:
        """Look again at files whose time has come, so many at most."""
        now = self._clock()
        due = [path for path, look in self._unsettled.items() if look.due <= now][:limit]
        files = self._scanner.look(due).files
        for path in set(due).difference(file.path for file in files):
            del self._unsettled[path]
        return self.judge(files)

    def waiting(self) -> float | None:
        """Seconds until `again` has something to look at; None while there is nothing to wait for."""
        due = min((look.due for look in self._unsettled.values()), default=None)
        return None if due is None else max(0.0, due - self._clock())

    def _wait(self, file: BufferedFile, closed: Closed, known: float, *, whole: bool) -> float:
        """Seconds until it may have settled, given that we have known it as it is for so long."""
        if closed is Closed.MOOT:
            return max(self._settle, _SOON)
        if whole:
            return 0.0
        age = self._wall() - file.fence.ctime_ns / 1e9
        if closed is not Closed.YES or age < 0:
            age = known
        # open(2) makes a file some microseconds before it counts the one who opens it (seen).
        least = self._settle if file.fence.size else max(self._settle, _SOON)
        return least - age


class Probe:
    """Asks the kernel whether files are closed, for as long as no mount is expected to change.

    A process that asks must not die of SIGIO: the kernel sends it when somebody opens a file for
    writing in the microseconds while its lease is held.
    """

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._shared: dict[int, bool] = {}

    def ask(self, file: BufferedFile) -> Closed:
        """Open a file for as long as it takes to ask; neither its content nor its times are touched."""
        try:
            descriptor = os.open(os.path.join(self._root, file.path), _CAUTIOUSLY)
        except BlockingIOError:
            # Somebody holds a lease of his own, which this attempt to open it has begun to break.
            return Closed.NO
        except OSError as error:
            # What can't be opened for another reason is taken in its time, so that the reason is told.
            return Closed.MOOT if error.errno in _PASSING else Closed.UNKNOWN
        try:
            status = os.fstat(descriptor)
            if Fence.of(status) != file.fence:
                return Closed.MOOT
            if self._is_shared(descriptor, status.st_dev):
                # FUSE grants every lease, NFSv4 refuses all for which the server gave it no delegation.
                return Closed.UNKNOWN
            return _lease(descriptor)
        finally:
            os.close(descriptor)

    def _is_shared(self, descriptor: int, device: int) -> bool:
        if device not in self._shared:
            self._shared[device] = is_shared(filesystem(descriptor))
        return self._shared[device]


def _lease(descriptor: int) -> Closed:
    """Ask for a read lease, which ends when the descriptor is closed."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return Closed.NO
    except OSError:
        return Closed.UNKNOWN
    return Closed.YES
