"""From a buffer to the ledger: what is there, what of it is new, and what of that has settled."""

import logging
from collections.abc import Collection, Container, Iterable, Iterator, Sequence

from common.files import BufferedFile, Checksum
from common.ledger.ledger import Ledger
from common.ledger.rows import Found, Version
from common.scan import Page, Source
from common.settle import Judged, Settling
from common.tasks import Identified
from common.watch import Watch
from common.wording import path as shown_path

log = logging.getLogger(__name__)

_REST = 20
"""While a watch hears of every change, scans take one part in so many of the time at most."""
_RENEW = 60.0
"""Seconds between two attempts to watch what could not be watched before."""
_HELD_OPEN = 300.0
"""A file that somebody has had open for writing for so many seconds is named."""
_BACKLOG = 5000
"""Files waiting to be identified beyond which the walk waits for them."""


class Discovery:
    """Keeps the ledger up to date with a buffer. The scan is the truth; events make it earlier.

    Times are seconds by a monotonic clock, but for `now_ms`, which is the ledger's time.

    Parameters
    ----------
    watch
        None where nothing in the buffer is an event: then the scans alone find what is new.
    absent
        The states of versions that are not in the buffer: one that is seen there has come back.
    pause
        Seconds between two scans. While the watch is healthy a scan that takes long is repeated
        more rarely, since every change is heard of.
    bulky_above
        Files of more bytes than this are entered as bulky.
    """

    def __init__(
        self,
        ledger: Ledger,
        scanner: Source,
        settling: Settling,
        watch: Watch | None,
        *,
        absent: Collection[str],
        pause: float,
        bulky_above: int,
    ) -> None:
        self._ledger = ledger
        self._scanner = scanner
        self._settling = settling
        self._watch = watch
        self._absent = absent
        self._pause = pause
        self._bulky_above = bulky_above
        self._walk: Iterator[Page] | None = None
        self._walk_began = 0.0
        self._next_walk = 0.0
        self._walked_since = float("-inf")
        self._unknown: dict[bytes, Found] = {}
        self._in_hand = 0
        self._told: set[bytes] = set()
        self._lost_events = False
        self._next_renewal = 0.0
        self._open: dict[bytes, tuple[float, float]] = {}
        """By path: when it was first and when it was last seen open for writing."""

    def filenos(self) -> list[int]:
        """What becomes readable when there is something new."""
        return [] if self._watch is None else [self._watch.fileno()]

    def patience(self, now: float) -> float:
        """Seconds until `advance` has something to do without an event."""
        if self._walk is not None or self._lost_events:
            return 0.0 if len(self._unknown) < _BACKLOG else 1.0
        settling = self._settling.waiting()
        return min(self._next_walk - now, self._pause if settling is None else settling)

    def advance(self, now: float, now_ms: int) -> None:
        """Take in the events, what has settled since, and one page of the walk when it is due."""
        self._listen(now, now_ms)
        self._enter(self._settling.again(), now, now_ms)
        if self._walk is None and (now >= self._next_walk or self._lost_events):
            self._walk, self._walk_began, self._lost_events = self._scanner.pages(), now, False
            self._keep_watch(now)
        if self._walk is not None and len(self._unknown) < _BACKLOG:
            page = next(self._walk, None)
            if page is not None:
                self._consider(page, now, now_ms)
            else:
                self._end_walk(now)

    def unidentified(self, limit: int, max_bytes: int) -> tuple[BufferedFile, ...]:
        """Files whose path is known with other content, to be hashed by a worker; at least one if any."""
        taken: list[BufferedFile] = []
        total = 0
        for found in self._unknown.values():
            total += found.fence.size
            if taken and (len(taken) == limit or total > max_bytes):
                break
            taken.append(BufferedFile(found.path, found.fence))
        for file in taken:
            del self._unknown[file.path]
        self._in_hand += len(taken)
        return tuple(taken)

    def identified(self, asked: Sequence[BufferedFile], identified: Identified | None, now_ms: int) -> None:
        """Enter files that were `unidentified`; those that could not be hashed are found again."""
        self._in_hand -= len(asked)
        if identified is not None:
            self._record([self._found(file, checksum) for file, checksum in identified.files], now_ms)

    def is_exhausted(self, since: float) -> bool:
        """Whether nothing is on its way to the ledger, by a walk that began after `since`."""
        pending = (
            self._walk is not None or self._unknown or self._in_hand or self._settling.waiting() is not None
        )
        if not pending and self._walked_since <= since:
            self._next_walk = 0.0
            return False
        return not pending

    def _listen(self, now: float, now_ms: int) -> None:
        if self._watch is None:
            return
        changes = self._watch.changes()
        if changes.overflowed:
            log.debug("file events were lost: the whole buffer is looked at")
            self._lost_events = True
        if changes.paths:
            self._consider(self._scanner.look(changes.paths), now, now_ms, moved_in=changes.moved_in)

    def _consider(self, page: Page, now: float, now_ms: int, moved_in: Container[bytes] = ()) -> None:
        self._tell(page)
        known = self._ledger.versions([file.path for file in page.files])
        new = [file for file in page.files if not self._is_known(file, known.get(file.path, ()))]
        self._enter(self._settling.judge(new, moved_in=moved_in), now, now_ms)

    def _is_known(self, file: BufferedFile, versions: Iterable[Version]) -> bool:
        waiting = self._unknown.get(file.path)
        if waiting is not None and waiting.fence == file.fence:
            return True
        return any(version.fence == file.fence and version.state not in self._absent for version in versions)

    def _keep_watch(self, now: float) -> None:
        """Try again to watch what could not be watched; until that succeeds the walks find what is new."""
        if self._watch is None or self._watch.healthy or now < self._next_renewal:
            return
        self._next_renewal = now + _RENEW
        self._once(
            b"\0", f"the buffer is not watched, only scanned: {self._watch.reason}; {self._watch.hint}"
        )
        self._watch.renew()

    def _enter(self, judged: Judged, now: float, now_ms: int) -> None:
        self._record([self._found(file) for file in judged.settled], now_ms)
        for file in judged.open:
            first, _ = self._open.get(file.path, (now, now))
            self._open[file.path] = first, now
            if now - first > _HELD_OPEN:
                self._once(file.path, f"{shown_path(file.path)}: waits, for somebody has it open for writing")
        for file in judged.settled:
            self._open.pop(file.path, None)

    def _record(self, found: list[Found], now_ms: int) -> None:
        if found:
            recorded = self._ledger.record(found, now_ms=now_ms)
            self._unknown.update((unknown.path, unknown) for unknown in recorded.unknown)

    def _found(self, file: BufferedFile, checksum: Checksum | None = None) -> Found:
        return Found(file.path, file.fence, checksum, bulky=file.fence.size > self._bulky_above)

    def _end_walk(self, now: float) -> None:
        self._walk = None
        self._walked_since = self._walk_began
        # What this walk has not seen open any more has been closed, renamed or removed. (One of rsync's logs
        # sees a file again only when it reads its log once more.)
        limit = min(self._walk_began, now - _HELD_OPEN)
        self._open = {path: seen for path, seen in self._open.items() if seen[1] >= limit}
        cost = now - self._walk_began
        is_heard = self._watch is None or self._watch.healthy
        self._next_walk = now + (max(self._pause, _REST * cost) if is_heard else self._pause)

    def _tell(self, page: Page) -> None:
        """Name each odd thing and each unreadable place once."""
        for odd in page.odd:
            self._once(odd.path, f"{shown_path(odd.path)}: left alone, it is a {odd.kind}")
        for unreadable in page.unreadable:
            where = shown_path(unreadable.path) if unreadable.path else "the buffer"
            self._once(unreadable.path, f"{where}: can't be looked at: {unreadable.reason}")

    def _once(self, path: bytes, message: str) -> None:
        if path not in self._told:
            self._told.add(path)
            log.warning("%s", message)
