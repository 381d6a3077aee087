"""Files that rsync has placed in storage, found by what its logs say.

The logs of a day lie below a directory that is called like it (``20261125``) and are called
``rsync….log``. Nothing is remembered of what was read but that a log has not changed since: a log
that is read again names files that the ledger knows, and that is all.
"""

import os
import re
import stat
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import islice
from typing import BinaryIO

from common.files import BufferedFile, Fence
from common.scan import Odd, Page, Scanner, Unreadable
from common.wording import path as shown

_LOG = re.compile(rb"rsync.*log([.-][0-9]+)?")
"""Names of logs, also of those that were rotated."""
_ITEM = re.compile(rb"(?:^|(?<= ))([<>h])f[.+?cstTpoguaxbnz]{7,9} (.+)", re.DOTALL)
"""What `%i` says of a file that was sent or received, or was made a hard link, and what follows."""
_ESCAPE = re.compile(rb"\\#([0-3][0-7]{2})")
"""How rsync writes a byte that is not printable, in octal."""
_LONGEST = 1 << 16
"""Bytes of the longest line that is a line."""
_PAGE = 1000
_NAMED = 100
"""Files of one log that are told one by one because they are not there."""
_REST = 20
"""Logs that have not changed are read again so seldom that it takes one part in so many of the time."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which logs are read, and when."""

    day: date | None = None
    """None: today, as this machine's clock has it."""
    past_days: int = 1
    future_days: int = 1
    delay: float = 60.0
    """Seconds for which a log must have been left unchanged."""
    extension: str = "done"
    """A log beside which a file with this extension lies that is not older has been dealt with."""


@dataclass(frozen=True, slots=True)
class _Log:
    """A log as it was looked at last."""

    fence: Fence
    since: float
    """When it was first seen like that, by the monotonic clock."""
    is_read: bool


class RsyncLogs:
    """Sees the files that logs name, as a `Scanner` of storage sees all.

    Parameters
    ----------
    logs
        The directory of the days' directories.
    storage
        What the names in them are relative to.
    exclude
        Regular expressions for files that are passed over, as for a `Scanner`.
    """

    def __init__(
        self,
        logs: bytes,
        storage: bytes,
        window: Window,
        *,
        exclude: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        today: Callable[[], date] = date.today,
    ) -> None:
        self.root = storage
        self._directory = logs
        self._window = window
        self._scanner = Scanner(storage, exclude=exclude)
        self._exclude = tuple(re.compile(pattern) for pattern in exclude)
        self._clock = clock
        self._wall = wall
        self._today = today
        self._logs: dict[bytes, _Log] = {}
        self._next_anew = float("-inf")

    def look(self, paths: Iterable[bytes]) -> Page:
        """Look at these paths below storage alone."""
        return self._scanner.look(paths)

    def pages(self) -> Iterator[Page]:
        """Read the logs once, and look at the files that they name.

        What is named and not there is told as unreadable, and looked for again as long as its day's
        logs are read.
        """
        began = self._clock()
        is_anew = began >= self._next_anew
        logs: dict[bytes, _Log] = {}
        if not os.path.isdir(self._directory):
            yield Page(unreadable=(Unreadable(self._directory, "no directory of rsync logs is there"),))
        for day in self._days():
            faults: list[OSError] = []
            for path in _logs_below(os.path.join(self._directory, day), faults):
                try:
                    logs[path] = yield from self._take(path, is_anew=is_anew)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    yield Page(unreadable=(Unreadable.of(path, error),))
            # A day without logs is an ordinary day.
            told = [fault for fault in faults if not isinstance(fault, FileNotFoundError)]
            if told:
                yield Page(unreadable=tuple(_unreadable(fault) for fault in told))
        self._logs = logs
        if is_anew:
            now = self._clock()
            self._next_anew = now + _REST * (now - began)

    def _days(self) -> Iterator[bytes]:
        """The names of the days' directories."""
        window = self._window
        for offset in range(-window.past_days, window.future_days + 1):
            try:
                day = (window.day or self._today()) + timedelta(days=offset)
            except OverflowError:
                continue
            yield day.isoformat().replace("-", "").encode()

    def _take(self, path: bytes, *, is_anew: bool) -> Generator[Page, None, _Log]:
        """Read a log if it is time for that."""
        status = os.stat(path)
        fence, now, before = Fence.of(status), self._clock(), self._logs.get(path)
        since, is_read = now, False
        if before is not None and before.fence == fence:
            since, is_read = before.since, before.is_read
        # By its own time where that can be, so that the logs of a night need not wait at every start.
        age = max(self._wall() - status.st_mtime, now - since)
        if age < self._window.delay or (is_read and not is_anew) or self._is_dealt_with(path, status):
            return _Log(fence, since, is_read)
        yield from self._read(path)
        return _Log(fence, since, is_read=True)

    def _is_dealt_with(self, path: bytes, status: os.stat_result) -> bool:
        if not self._window.extension:
            return False
        try:
            mark = os.stat(path + b"." + os.fsencode(self._window.extension))
        except OSError:
            return False
        return mark.st_mtime_ns >= status.st_mtime_ns

    def _read(self, path: bytes) -> Iterator[Page]:
        label, missing = os.path.relpath(path, self._directory), 0
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return
            lines = _lines(file)
            while some := list(islice(lines, _PAGE)):
                page, absent = self._look_for(some)
                told = absent[: max(0, _NAMED - missing)]
                missing += len(absent)
                reason = f"it is not there, though the rsync log {shown(label)} names it"
                yield replace(page, unreadable=tuple(Unreadable(name, reason) for name in told))
        if missing > _NAMED:
            yield Page(unreadable=(Unreadable(path, f"{missing:,} files that it names are not there"),))

    def _look_for(self, lines: Sequence[tuple[bytes, bool]]) -> tuple[Page, list[bytes]]:
        """What there is of what the lines name, and the names of what is not there."""
        named = {names: is_whole for line, is_whole in lines if (names := self._names(line))}
        page = self._scanner.look(dict.fromkeys(name for names in named for name in names))
        files = {file.path: file for file in page.files}
        others = {odd.path: odd for odd in page.odd}
        seen: dict[bytes, BufferedFile] = {}
        odd: dict[bytes, Odd] = {}
        absent: dict[bytes, None] = {}
        for names, is_whole in named.items():
            for name in names:
                if name in files:
                    seen[name] = files[name]
                elif name in others:
                    odd[name] = others[name]
                elif not os.path.lexists(os.path.join(self.root, name)):
                    continue
                break
            else:
                if is_whole:
                    absent[names[0]] = None
        return Page(tuple(seen.values()), tuple(odd.values())), list(absent)

    def _names(self, line: bytes) -> tuple[bytes, ...]:
        """The names below storage that a line may mean, the likeliest first; none of what is excluded."""
        below = (self._below(path) for path in paths_named(line))
        names = tuple(dict.fromkeys(name for name in below if name))
        if names and any(pattern.search(os.fsdecode(names[0])) for pattern in self._exclude):
            return ()
        return names

    def _below(self, path: bytes) -> bytes | None:
        """The path relative to storage; None if it is none below it."""
        if b"\0" in path:
            return None
        if os.path.isabs(path):
            path = os.path.relpath(path, self.root)
        path = os.path.normpath(path)
        return None if path in (b".", b"..") or path.startswith(b"../") else path


def paths_named(line: bytes) -> tuple[bytes, ...]:
    """The paths of the file that a log's line may name, the likeliest first; none of another line.

    As `--log-file` has it (``DATE TIME [PID] >f+++++++++ PATH``), or an `--out-format` with ``%i``: the
    path ends the line or, where at most one word stands before the ``%i``, is the third word.
    """
    found = _ITEM.search(line)
    if not found:
        return ()
    before, rest = line[: found.start()].split(), found[2]
    if found[1] == b"h":
        rest = rest.split(b" => ")[0]
    paths = [rest]
    words = rest.split()
    if not before and len(words) > 1:
        paths += [rest.split(b" ", 1)[1], words[1]]
    elif len(before) == 1 and words:
        paths.append(words[0])
    return tuple(dict.fromkeys(form for path in paths for form in (_unescaped(path), path)))


def _unescaped(path: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), path)


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """The lines without their ends, and whether each has one; what is too long to be one is left out."""
    is_rest = False
    while piece := file.readline(_LONGEST):
        is_whole = piece.endswith(b"\n")
        if not is_rest and (is_whole or len(piece) < _LONGEST):
            yield piece.rstrip(b"\r\n"), is_whole
        is_rest = not is_whole


def _logs_below(directory: bytes, faults: list[OSError]) -> Iterator[bytes]:
    """The logs of a day; what can't be read is added to `faults`."""
    for place, _, names in os.walk(directory, onerror=faults.append):
        for name in sorted(names):
            if _LOG.fullmatch(name):
                yield os.path.join(place, name)


def _unreadable(fault: OSError) -> Unreadable:
    return Unreadable.of(os.fsencode(fault.filename), fault)
