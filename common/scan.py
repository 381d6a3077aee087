"""What is in a buffer: a walk that looks at every file and opens none."""

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from common.files import BufferedFile, Fence
from common.tree import Tree

_KINDS = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFSOCK: "socket",
    stat.S_IFIFO: "fifo",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}


@dataclass(frozen=True, slots=True)
class Odd:
    """Something that is neither a regular file nor a directory, and is left alone."""

    path: bytes
    kind: str
    """``symbolic link``, ``socket``, ``fifo``, ``block device`` or ``character device``."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What can't be looked at, most often a directory; an empty path is the buffer itself."""

    path: bytes
    reason: str

    @classmethod
    def of(cls, path: bytes, error: OSError) -> "Unreadable":
        return cls(path, error.strerror or str(error))


Sight = BufferedFile | Odd | Unreadable


@dataclass(frozen=True, slots=True)
class Page:
    """A part of what was seen. Paths are relative to the buffer."""

    files: tuple[BufferedFile, ...] = ()
    odd: tuple[Odd, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()

    @classmethod
    def of(cls, sights: Sequence[Sight]) -> "Page":
        return cls(
            tuple(sight for sight in sights if isinstance(sight, BufferedFile)),
            tuple(sight for sight in sights if isinstance(sight, Odd)),
            tuple(sight for sight in sights if isinstance(sight, Unreadable)),
        )


class Source(Protocol):
    """What sees files in a buffer: a `Scanner`, which sees all, or one that is told where to look."""

    root: bytes
    """The buffer."""

    def pages(self) -> Iterator[Page]:
        """All files that it sees."""

    def look(self, paths: Iterable[bytes]) -> Page:
        """Look at these paths alone; what is not there is passed over."""


class Scanner:
    """Looks at what is in a buffer. It follows no links, and enters what is mounted below.

    Parameters
    ----------
    exclude
        Regular expressions. A path below the buffer that one of them is found in is passed over in
        silence; bytes that are no UTF-8 are surrogates in it, as `os.fsdecode` has them.
    page
        How many paths a page holds at most. Beside them a walk remembers nothing but the
        directories that it has yet to enter.
    """

    def __init__(self, root: bytes, *, exclude: Sequence[str] = (), page: int = 1000) -> None:
        self.root = root
        self._exclude = tuple(re.compile(pattern) for pattern in exclude)
        self._page = page

    def pages(self, top: bytes = b"") -> Iterator[Page]:
        """Walk the whole buffer once, or what lies below `top`. What moves meanwhile may be seen or not."""
        sights = self._walk(top)
        while some := list(islice(sights, self._page)):
            yield Page.of(some)

    def look(self, paths: Iterable[bytes]) -> Page:
        """Look at these paths alone; what is not there is passed over, and so are directories."""
        names = defaultdict(list)
        for path in paths:
            directory, name = os.path.split(path)
            names[directory].append(name)
        sights: list[Sight] = []
        # A buffer or a directory that can't be read is told by the next walk.
        try:
            with Tree(self.root) as tree:
                for directory in names:
                    sights += self._look_into(tree, directory, names[directory])
        except OSError:
            pass
        return Page.of(sights)

    def _walk(self, top: bytes) -> Iterator[Sight]:
        try:
            tree = Tree(self.root)
        except OSError as error:
            yield Unreadable.of(b"", error)
            return
        with tree:
            pending = [top]
            while pending:
                yield from self._enter(tree, pending.pop(), pending)

    def _enter(self, tree: Tree, directory: bytes, pending: list[bytes]) -> Iterator[Sight]:
        """Look at all that lies in a directory; its own directories are put on the list of those pending."""
        try:
            descriptor = tree.open(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            yield Unreadable.of(directory, error)
            return
        try:
            yield from self._list(directory, descriptor, pending)
        except OSError as error:
            yield Unreadable.of(directory, error)
        finally:
            os.close(descriptor)

    def _list(self, directory: bytes, descriptor: int, pending: list[bytes]) -> Iterator[Sight]:
        prefix = directory + b"/" if directory else b""
        denied = False
        with os.scandir(descriptor) as entries:
            for entry in entries:
                path = prefix + os.fsencode(entry.name)
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except PermissionError as error:
                    # A directory that may be listed but not searched: one fact, however many files.
                    if not denied:
                        yield Unreadable.of(directory, error)
                    denied = True
                    continue
                except OSError as error:
                    yield Unreadable.of(path, error)
                    continue
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path)
                elif sight := self._sight(path, status):
                    yield sight

    def _look_into(self, tree: Tree, directory: bytes, names: Iterable[bytes]) -> Iterator[Sight]:
        try:
            descriptor = tree.open(directory)
        except OSError:
            return
        try:
            for name in names:
                try:
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                except OSError:
                    continue
                if sight := self._sight(os.path.join(directory, name), status):
                    yield sight
        finally:
            os.close(descriptor)

    def _sight(self, path: bytes, status: os.stat_result) -> BufferedFile | Odd | None:
        """What is there; None when it is excluded, or is a directory."""
        if self._exclude and self._is_excluded(os.fsdecode(path)):
            return None
        if stat.S_ISREG(status.st_mode):
            return BufferedFile(path, Fence.of(status))
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        return Odd(path, kind) if kind else None

    def _is_excluded(self, path: str) -> bool:
        return any(pattern.search(path) for pattern in self._exclude)
