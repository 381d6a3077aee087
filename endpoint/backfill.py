"""Files that are in storage already enter the ledger: hashed, settled, and not touched."""

import errno
import os
import stat
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from common.clock import now_ms
from common.errors import DbbError
from common.files import Algorithm, BufferedFile, Checksum, Fence, Hashing
from common.ledger.ledger import Ledger
from common.ledger.rows import VANISHED, Found, Version
from common.scan import Page, Scanner
from common.wording import files, size
from common.wording import path as shown
from endpoint.lifecycle import BACKFILLED, STORED
from endpoint.premises import ALGORITHM

_UNFINISHED = r"(^|/)\.dbb-[0-9a-f]{32}\.part$"
"""What the manager itself has not finished copying into storage."""
_PAGE = 1000
"""Files that enter the ledger together at most."""
_FLUSH = 1.0
"""Seconds after which hashed files enter the ledger, so that a kill costs little."""


@dataclass(slots=True)
class Tally:
    """What has come of the files so far."""

    entered: int = 0
    """New versions; of a dry run, files that would have to be hashed."""
    entered_bytes: int = 0
    known: int = 0
    known_bytes: int = 0
    troubles: int = 0
    """Files, directories and sources that could not be read."""
    odd: int = 0
    """Links, sockets and the like, which are left alone."""
    hashing: int = 0
    """Bytes of the file that is being hashed."""

    @property
    def bytes(self) -> int:
        """Of all that is done."""
        return self.entered_bytes + self.known_bytes + self.hashing

    def told(self, *, dry_run: bool) -> str:
        """In one sentence."""
        done = "would be hashed and entered" if dry_run else "entered as backfilled"
        parts = [
            f"{files(self.entered)} ({size(self.entered_bytes)}) {done}",
            f"{self.known:,} known already",
        ]
        if self.odd:
            parts.append(f"{self.odd:,} left alone that are no regular files")
        if self.troubles:
            parts.append(f"{self.troubles:,} could not be read")
        return ", ".join(parts)


def source_path(storage: bytes, named: str) -> bytes:
    """The path below storage of a source on the command line; empty: all of storage.

    Raises
    ------
    DbbError
        It lies elsewhere.
    """
    top = os.path.realpath(storage)
    path = os.path.normpath(os.path.join(top, os.fsencode(named)))
    if os.path.realpath(path) == top:
        return b""
    directory, name = os.path.split(path)
    real = os.path.join(os.path.realpath(directory), name)
    if not real.startswith(top.rstrip(b"/") + b"/"):
        raise DbbError(
            f"{shown(path)} does not lie below storage, {shown(storage)}",
            "name a file or directory in storage, by its absolute path or relative to storage; "
            "what lies elsewhere arrives by way of the buffer",
        )
    return os.path.relpath(real, top)


class Backfill:
    """Goes through sources below storage once; what the ledger knows already costs no more than a look.

    Parameters
    ----------
    ledger
        None for a dry run where there is none yet: then nothing is known.
    tell
        Is given a sentence about each thing that is not as it should be.
    """

    def __init__(
        self, storage: bytes, exclude: Sequence[str], ledger: Ledger | None, tell: Callable[[str], None]
    ) -> None:
        self._storage = os.path.realpath(storage)
        self._scanner = Scanner(self._storage, exclude=(*exclude, _UNFINISHED), page=_PAGE)
        self._ledger = ledger
        self._tell = tell
        self._hashed: list[Found] = []
        self._next_flush = time.monotonic() + _FLUSH
        self.tally = Tally()

    def sizes(self, sources: Sequence[bytes]) -> Iterator[int]:
        """How many bytes the sources have, a page at a time."""
        for source in sources:
            for page in self._pages(source):
                yield sum(file.fence.size for file in page.files)

    def run(self, sources: Sequence[bytes], *, dry_run: bool = False) -> Iterator[None]:
        """Enter what is not known; pauses often, for somebody to draw how far it has come."""
        for source in sources:
            self._see(source)
            for page in self._pages(source):
                yield from self._take(page, dry_run=dry_run)
        self._flush()

    def _pages(self, source: bytes) -> Iterator[Page]:
        path = os.path.join(self._storage, source)
        if os.path.isdir(path) and not (source and os.path.islink(path)):
            return self._scanner.pages(source)
        return iter([self._scanner.look([source])])

    def _see(self, source: bytes) -> None:
        """Tell of a source that is not there, or that is nothing to enter."""
        try:
            mode = os.lstat(os.path.join(self._storage, source)).st_mode
        except OSError as error:
            self._trouble(source, error)
            return
        if source and not stat.S_ISDIR(mode) and not self._scanner.look([source]).files:
            self._tell(f"{shown(source)}: left alone: it is excluded, or no regular file")

    def _take(self, page: Page, *, dry_run: bool) -> Iterator[None]:
        self.tally.odd += len(page.odd)
        for unreadable in page.unreadable:
            self.tally.troubles += 1
            self._tell(f"{shown(unreadable.path or self._storage)}: can't be read: {unreadable.reason}")
        paths = [file.path for file in page.files]
        known = self._ledger.versions(paths) if self._ledger else {}
        for file in page.files:
            versions = known.get(file.path, ())
            if any(_is_known(version, file) for version in versions):
                self._count_known(file)
            elif dry_run:
                self._count_entered(file)
            else:
                yield from self._enter(file, versions)
        yield

    def _enter(self, file: BufferedFile, versions: Sequence[Version]) -> Iterator[None]:
        """Hash a file with every algorithm that its known versions have digests of, and enter it."""
        checksums = [version.checksum for version in versions if version.checksum]
        found: dict[Algorithm, Checksum] = {}
        try:
            for algorithm in dict.fromkeys([*(one.algorithm for one in checksums), ALGORITHM]):
                found[algorithm] = yield from self._hash(file, algorithm)
        except OSError as error:
            self._trouble(file.path, error)
            return
        finally:
            self.tally.hashing = 0
        if any(checksum in checksums for checksum in found.values()):
            self._count_known(file)
            return
        if checksums:
            states = ", ".join(dict.fromkeys(version.state for version in versions))
            self._tell(f"{shown(file.path)}: entered beside versions with other content ({states})")
        self._count_entered(file)
        self._hashed.append(Found(file.path, file.fence, found[ALGORITHM]))
        if len(self._hashed) >= _PAGE or time.monotonic() >= self._next_flush:
            self._flush()

    def _hash(self, file: BufferedFile, algorithm: Algorithm) -> Generator[None, None, Checksum]:
        path = os.path.join(self._storage, file.path)
        hashing = Hashing(path, algorithm)
        self.tally.hashing = 0
        for chunk in hashing:
            self.tally.hashing += len(chunk)
            yield
        checksum, fence = hashing.result
        change = file.fence.change(fence) or fence.change(Fence.of(os.lstat(path)))
        if change:
            raise OSError(errno.EBUSY, f"it {change} just now; run this again once it is left alone")
        return checksum

    def _flush(self) -> None:
        if self._hashed and self._ledger:
            self._ledger.backfill(BACKFILLED, self._hashed, now_ms=now_ms())
        self._hashed = []
        self._next_flush = time.monotonic() + _FLUSH

    def _count_entered(self, file: BufferedFile) -> None:
        self.tally.entered += 1
        self.tally.entered_bytes += file.fence.size

    def _count_known(self, file: BufferedFile) -> None:
        self.tally.known += 1
        self.tally.known_bytes += file.fence.size

    def _trouble(self, path: bytes, error: OSError) -> None:
        self.tally.troubles += 1
        self._tell(f"{shown(path)}: can't be read: {error.strerror or error}")


def _is_known(version: Version, file: BufferedFile) -> bool:
    """Whether a file is what the ledger knows in its place, as far as can be told without reading it."""
    if version.fence == file.fence:
        return version.state != VANISHED or version.checksum is not None
    # What the manager has moved into storage has another change time since, or is a copy.
    then, now = version.fence, file.fence
    return version.state in STORED and (then.size, then.mtime_ns) == (now.size, now.mtime_ns)
