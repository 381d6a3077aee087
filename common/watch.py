"""Hears of files that are closed in a buffer or renamed into it, so that nobody waits for the next walk."""

import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from inotify_simple import Event, INotify, flags, parse_events  # type: ignore[import-untyped]

from common.mounts import filesystem, is_shared
from common.tree import Tree

# MOVED_FROM is left out: each file that goes to the holding area would be an event for nothing, and
# that a directory went is told by its own MOVE_SELF.
_MASK = (
    flags.CLOSE_WRITE | flags.MOVED_TO | flags.CREATE | flags.MOVE_SELF | flags.ONLYDIR | flags.EXCL_UNLINK
)
_READ = 1 << 16
_LIMITS = {errno.ENOSPC: "fs.inotify.max_user_watches", errno.EMFILE: "fs.inotify.max_user_instances"}


@dataclass(frozen=True, slots=True)
class Changes:
    """What has happened, each path once. Paths are relative to the buffer."""

    paths: tuple[bytes, ...] = ()
    """What was closed, was renamed into its place, or lies in a directory that is new."""
    moved_in: frozenset[bytes] = frozenset()
    """Those of them that were renamed into their place, alone or in a directory, and not written to since."""
    overflowed: bool = False
    """Something was missed; only a walk can tell what."""


class Watch:
    """Watches a whole buffer by inotify, its directories as they come and go.

    Made before the first walk, it leaves no gap. A watch that is not healthy goes on telling what
    it hears; what it can't hear, the walks find.

    Parameters
    ----------
    page
        How many paths of a new directory are told at most; if it holds more, that is an overflow.
    """

    def __init__(self, root: bytes, *, page: int = 1000) -> None:
        self._root = root
        self._page = page
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def healthy(self) -> bool:
        """Whether it hears everything; if not, `reason` and `hint` say why and what to do."""
        return not self.reason

    def fileno(self) -> int:
        """Readable when there are changes. Another one after `renew` and after an overflow."""
        return int(self._inotify.fileno())

    def renew(self) -> None:
        """Begin again: worth a try once in a while when it is not healthy. A walk must follow."""
        self.close()
        self._open()

    def close(self) -> None:
        """Watch nothing any more."""
        self._inotify.close()

    def changes(self) -> Changes:
        """What has happened, without waiting: some 2,000 events at most, `fileno` stays readable for more."""
        news = _News(self._page)
        for event in self._read():
            self._take(event, news)
        if news.lost:
            self.renew()
        moved_in = frozenset(path for path, moved in news.paths.items() if moved)
        return Changes(tuple(news.paths), moved_in, news.lost or news.overflowed)

    def _open(self) -> None:
        self.reason = self.hint = ""
        self._paths: dict[int, bytes] = {}
        self._devices: set[int] = set()
        try:
            self._inotify: INotify = INotify(nonblocking=True)
        except OSError as error:
            # Something to wait on and to read from that never has anything to tell.
            self._inotify = FileIO(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            self._ail(error)
        else:
            self._cover(b"", _News(0), moved=False)

    def _read(self) -> list[Event]:
        try:
            return list(parse_events(os.read(self._inotify.fileno(), _READ)))
        except BlockingIOError:
            return []

    def _take(self, event: Event, news: "_News") -> None:
        """Learn from one event."""
        if event.mask & (flags.Q_OVERFLOW | flags.UNMOUNT):
            news.lost = True
            return
        directory = self._paths.get(event.wd)
        if directory is None:
            return
        if event.mask & flags.IGNORED:
            del self._paths[event.wd]
            news.lost |= not directory
        elif event.mask & flags.MOVE_SELF:
            self._moved(directory, news)
        else:
            self._arrived(event, os.path.join(directory, os.fsencode(event.name)), news)

    def _arrived(self, event: Event, path: bytes, news: "_News") -> None:
        """Something was made, closed or renamed into its place."""
        moved = bool(event.mask & flags.MOVED_TO)
        if event.mask & flags.ISDIR:
            self._cover(path, news, moved=moved)
        elif moved or event.mask & flags.CLOSE_WRITE:
            # The latest event counts: what was renamed here and written to since is like any other file.
            news.paths[path] = moved

    def _moved(self, directory: bytes, news: "_News") -> None:
        """Forget a directory that has left its place, and all below; begin again with what is there now.

        If it went elsewhere in the buffer, its arrival was told before, and that is its place now.
        """
        if not directory:
            news.lost = True
            return
        for watch, path in list(self._paths.items()):
            if path == directory or path.startswith(directory + b"/"):
                del self._paths[watch]
                # It may have been removed since.
                with suppress(OSError):
                    self._inotify.rm_watch(watch)
        self._cover(directory, news, moved=True)

    def _cover(self, top: bytes, news: "_News", *, moved: bool) -> None:
        """Watch a directory and all below it. Each is listed once it is watched, so nothing slips through."""
        try:
            with Tree(self._root) as tree:
                pending = [top]
                while pending:
                    pending += self._cover_one(tree, pending.pop(), news, moved=moved)
        except OSError as error:
            self._ail(error)

    def _cover_one(self, tree: Tree, directory: bytes, news: "_News", *, moved: bool) -> list[bytes]:
        """Watch one directory; gives those in it that are not watched yet."""
        try:
            descriptor = tree.open(directory)
        except OSError:
            # Gone again, or not to be read: the walk tells.
            return []
        try:
            return self._list(descriptor, directory, news, moved=moved)
        except OSError as error:
            self._ail(error)
            return []
        finally:
            os.close(descriptor)

    def _list(self, descriptor: int, directory: bytes, news: "_News", *, moved: bool) -> list[bytes]:
        # The link in /proc names the open directory itself, whatever has become of its path.
        watch = self._inotify.add_watch(b"/proc/self/fd/%d" % descriptor, _MASK)
        if self._paths.get(watch) == directory:
            return []
        self._paths[watch] = directory
        self._check_filesystem(descriptor)
        directories = []
        with os.scandir(descriptor) as entries:
            for entry in entries:
                path = os.path.join(directory, os.fsencode(entry.name))
                if entry.is_dir(follow_symlinks=False):
                    directories.append(path)
                else:
                    news.add(path, moved=moved)
        return directories

    def _check_filesystem(self, descriptor: int) -> None:
        """Fall ill where events are no promise."""
        device = os.fstat(descriptor).st_dev
        if device in self._devices:
            return
        self._devices.add(device)
        name = filesystem(descriptor)
        if is_shared(name) and self.healthy:
            self.reason = f"on a shared filesystem ({name}) what other hosts write causes no events"
            self.hint = "nothing is lost: the scan after each general.pause finds it"

    def _ail(self, error: OSError) -> None:
        """Fall ill; the first reason is kept."""
        if not self.healthy:
            return
        limit = _LIMITS.get(error.errno or 0)
        if limit is None:
            self.reason = f"the buffer can't be watched: {error.strerror}"
            self.hint = "nothing is lost: the scan after each general.pause finds what is there"
        else:
            self.reason = f"the buffer can't be watched as a whole: the kernel's limit {limit} is reached"
            self.hint = (
                f"raise it: sysctl {limit}={_more_than(limit)}; till then scans find what events don't tell"
            )


@dataclass(slots=True)
class _News:
    """What `changes` has gathered so far."""

    room: int
    paths: dict[bytes, bool] = field(default_factory=dict)
    """Whether each was moved in."""
    overflowed: bool = False
    """There was no room for something."""
    lost: bool = False
    """The kernel's queue overflowed, or the buffer itself was replaced."""

    def add(self, path: bytes, *, moved: bool) -> None:
        """Enter what was found in a new directory, which may be any number of files."""
        if len(self.paths) < self.room:
            self.paths[path] = moved
        else:
            self.overflowed = True


def _more_than(limit: str) -> int:
    """Four times what the limit is now."""
    return 4 * int(Path("/proc/sys", *limit.split(".")).read_text())
