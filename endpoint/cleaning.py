"""What a worker does for the cleaner: look for what is old, and remove what may go.

Nothing is removed by its path: a directory is opened below its root, never by way of a link, and what
lies in it is looked at once more before it goes.
"""

import heapq
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from common.files import BufferedFile, Fence
from common.sweep import sweep_empty_directories
from common.tree import Tree
from common.wording import path as shown


@dataclass(frozen=True, slots=True)
class Rest:
    """Where a look goes on."""

    pending: tuple[bytes, ...] = (b"",)
    """Directories that are still to be looked at, relative to the root; the last one is the next."""
    after: bytes = b""
    """Of that one, names up to this are done with."""


@dataclass(frozen=True, slots=True)
class Look:
    """Errand: find old files below a directory."""

    root: bytes
    """Absolute, without links."""
    older_than: float
    """In seconds."""
    rest: Rest = Rest()
    page: int = 5000
    """Files after which it comes to an end, at the end of a directory or with twice as many."""


@dataclass(frozen=True, slots=True)
class Sighted:
    """Some old files."""

    files: tuple[BufferedFile, ...] = ()
    rest: Rest | None = None
    """None at the end."""
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Remove:
    """Errand: remove these files below a directory, as far as they are still the same."""

    root: bytes
    older_than: float
    files: tuple[BufferedFile, ...]


@dataclass(frozen=True, slots=True)
class Removed:
    """What is gone."""

    files: tuple[BufferedFile, ...] = ()
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sweep:
    """Errand: remove empty directories below a directory."""

    root: bytes
    older_than: float
    """In seconds."""


@dataclass(frozen=True, slots=True)
class Swept:
    """The directories that are gone, relative to the root."""

    directories: tuple[bytes, ...] = ()


Errand = Look | Remove | Sweep


def run_errand(errand: Errand, now: float) -> Sighted | Removed | Swept:
    """Do it; `now` is in seconds since the epoch. Whatever vanishes meanwhile is nobody's trouble."""
    match errand:
        case Look():
            return look(errand, now)
        case Remove():
            return remove(errand, now)
        case Sweep(root, older_than):
            return Swept(sweep_empty_directories(root, older_than=older_than, now=now))


def is_old(status: os.stat_result, older_than: float, now: float) -> bool:
    """Whether nothing has been done to a file for more than so many seconds.

    Its last change counts, not the age of its content: a file that was moved or linked here a moment
    ago has come a moment ago, even if it was written last year.
    """
    return now - max(status.st_mtime, status.st_ctime) > older_than


def look(errand: Look, now: float) -> Sighted:
    """Find some of the regular files that are old, in an order in which it can go on later."""
    pending, after = list(errand.rest.pending), errand.rest.after
    old: list[BufferedFile] = []
    troubles: list[str] = []
    try:
        with _opened(errand.root) as tree:
            while pending and len(old) < errand.page:
                directory = pending.pop()
                examined = _examine(tree, directory, after, errand, now)
                # Those below are seen as often as their directory is listed, and noted the first time.
                pending += () if after else examined.below
                old += examined.old
                after = examined.after
                if after:
                    pending.append(directory)
                troubles += (f"{_told(errand.root, directory)}: {reason}" for reason in examined.troubles)
    except OSError as error:
        return Sighted(troubles=(f"{shown(errand.root)} can't be cleaned: {error.strerror}",))
    return Sighted(tuple(old), Rest(tuple(pending), after) if pending else None, tuple(troubles))


def remove(errand: Remove, now: float) -> Removed:
    """Remove files that are still what they were when they were looked at."""
    by_directory: defaultdict[bytes, list[BufferedFile]] = defaultdict(list)
    for file in errand.files:
        by_directory[os.path.dirname(file.path)].append(file)
    removed: list[BufferedFile] = []
    troubles: list[str] = []
    try:
        with _opened(errand.root) as tree:
            for directory, files in by_directory.items():
                try:
                    _remove(tree, directory, files, errand, now, removed)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    troubles.append(f"{_told(errand.root, directory)}: {error.strerror}")
    except OSError as error:
        troubles.append(f"{shown(errand.root)} can't be cleaned: {error.strerror}")
    return Removed(tuple(removed), tuple(troubles))


@dataclass(frozen=True, slots=True)
class _Examined:
    """What lies in one directory."""

    old: Sequence[BufferedFile] = ()
    below: Sequence[bytes] = ()
    after: bytes = b""
    """The last name that was taken, if there may be more."""
    troubles: Sequence[str] = ()


def _examine(tree: Tree, directory: bytes, after: bytes, errand: Look, now: float) -> _Examined:
    below: list[bytes] = []
    try:
        descriptor = tree.open(directory)
    except FileNotFoundError:
        return _Examined()
    except OSError as error:
        return _Examined(troubles=[error.strerror or str(error)])
    try:
        with os.scandir(descriptor) as entries:
            aged = _aged(entries, directory, after, below, errand.older_than, now)
            # By name: so a look at a directory of millions goes on where it was, and keeps a page of it.
            old = heapq.nsmallest(errand.page, aged, key=lambda file: file.path)
    except OSError as error:
        return _Examined(below=below, troubles=[error.strerror or str(error)])
    finally:
        os.close(descriptor)
    return _Examined(old, below, os.path.basename(old[-1].path) if len(old) == errand.page else b"")


def _aged(
    entries: Iterator["os.DirEntry[str]"],
    directory: bytes,
    after: bytes,
    below: list[bytes],
    older_than: float,
    now: float,
) -> Iterator[BufferedFile]:
    """The old ones of regular files; directories are put on the list of those `below`."""
    for entry in entries:
        name = os.fsencode(entry.name)
        try:
            if entry.is_dir(follow_symlinks=False):
                below.append(os.path.join(directory, name))
            elif name > after and entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                if is_old(status, older_than, now):
                    yield BufferedFile(os.path.join(directory, name), Fence.of(status))
        except FileNotFoundError:
            continue


def _remove(
    tree: Tree,
    directory: bytes,
    files: Sequence[BufferedFile],
    errand: Remove,
    now: float,
    removed: list[BufferedFile],
) -> None:
    descriptor = tree.open(directory)
    try:
        for file in files:
            name = os.path.basename(file.path)
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                is_same = stat.S_ISREG(status.st_mode) and Fence.of(status) == file.fence
                if is_same and is_old(status, errand.older_than, now):
                    os.unlink(name, dir_fd=descriptor)
                    removed.append(file)
            except FileNotFoundError:
                continue
    finally:
        os.close(descriptor)


@contextmanager
def _opened(root: bytes) -> Iterator[Tree]:
    """The root, unless something else has been put in its place, which a link would lead to."""
    if os.path.realpath(root) != root:
        raise NotADirectoryError(0, "a link lies on the way to it since the manager began")
    with Tree(root) as tree:
        yield tree


def _told(root: bytes, directory: bytes) -> str:
    return shown(os.path.join(root, directory) if directory else root)
