"""Delivery notes as a worker reads them: what the origin says of the files that it is to verify."""

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

from common.exchange import is_plain_name, read_note
from common.ledger.rows import Origin

_LARGEST = 64 << 20
"""Bytes of the largest note that is read: one of 500 files has 150 kB."""

_UNREADABLE = (
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)
"""What keeps from reading what may well be a note."""


class Notes:
    """The notes that lie in a staging directory. Each is read once, for it never changes."""

    def __init__(self, staging: bytes | None) -> None:
        self._directory = None if staging is None else os.path.join(staging, b".notes")
        self._read: dict[bytes, tuple[Origin, ...]] = {}
        self._by_path: defaultdict[bytes, list[Origin]] = defaultdict(list)

    def refresh(self) -> tuple[str, ...]:
        """Read what has come, forget what has been retired; tell what is wrong with lines that make no sense.

        A note is in place before the first of its files is, so that files found before this call are
        all accounted for.

        Raises
        ------
        OSError
            What the origin says can't be known now.
        """
        names = self._names()
        for gone in self._read.keys() - names:
            self._forget(gone)
        malformed: list[str] = []
        for name in names - self._read.keys():
            origins, wrong = self._parse(name)
            self._read[name] = origins
            for origin in origins:
                self._by_path[origin.path].append(origin)
            malformed += wrong
        return tuple(malformed)

    def of(self, path: bytes) -> tuple[Origin, ...]:
        """What notes say of a path, the latest first."""
        told = self._by_path.get(path, ())
        return tuple(sorted(told, key=lambda origin: origin.sent_at, reverse=True))

    def _names(self) -> set[bytes]:
        if self._directory is None:
            return set()
        with suppress(FileNotFoundError):
            return {name for name in os.listdir(self._directory) if is_plain_name(name)}
        return set()

    def _parse(self, name: bytes) -> tuple[tuple[Origin, ...], tuple[str, ...]]:
        assert self._directory is not None
        return parse_note(os.path.join(self._directory, name))

    def _forget(self, name: bytes) -> None:
        for origin in self._read.pop(name):
            left = [other for other in self._by_path[origin.path] if other.note != origin.note]
            if left:
                self._by_path[origin.path] = left
            else:
                del self._by_path[origin.path]


def parse_note(path: bytes) -> tuple[tuple[Origin, ...], tuple[str, ...]]:
    """The lines of a note, and what is wrong with it; nothing of what is no regular file.

    Raises
    ------
    OSError
        It can't be read, which says nothing about what is in it.
    """
    name = os.path.basename(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
                return (), (f"{os.fsdecode(name)}: no delivery note: it is no regular file, or huge",)
            return read_note(name, file.read())
    except FileNotFoundError:
        return (), ()
    except OSError as error:
        if error.errno in _UNREADABLE:
            raise
        return (), (f"{os.fsdecode(name)}: {error.strerror}",)


def paths_in(origins: Iterable[Origin]) -> tuple[bytes, ...]:
    """The paths that they name, each once."""
    return tuple(dict.fromkeys(origin.path for origin in origins))
