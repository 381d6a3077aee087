"""How values become columns of the ledger, and columns values."""

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from common.files import Algorithm, Checksum, Fence

Stored = int | str
"""A number that SQLite keeps as an integer if it has at most 64 bits, else as text."""

_LIMIT = 1 << 63
_PAGES = (1, 16, 512)


def fence_columns(fence: Fence) -> tuple[Stored, int, Stored, Stored]:
    """Inode, size, mtime_ns and ctime_ns, as they are stored."""
    return (_stored(fence.inode), fence.size, _stored(fence.mtime_ns), _stored(fence.ctime_ns))


def fence_of(inode: Stored, size: int, mtime_ns: Stored, ctime_ns: Stored) -> Fence:
    """The fence that was stored in these columns."""
    return Fence(int(inode), size, int(mtime_ns), int(ctime_ns))


def checksum_columns(checksum: Checksum | None) -> tuple[str | None, bytes | None]:
    """Algorithm and digest, as they are stored."""
    return (checksum.algorithm, bytes.fromhex(checksum.digest)) if checksum else (None, None)


def checksum_of(algorithm: Algorithm | None, digest: bytes | None) -> Checksum | None:
    """The checksum that was stored in these columns."""
    return Checksum(algorithm, digest.hex()) if algorithm and digest else None


def by_path(connection: sqlite3.Connection, query: str, paths: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
    """The rows of a query that has ``path IN ({paths})``, for any number of paths.

    A list in the query is four times as fast as a query a path. It comes in few lengths, padded with
    NULL, which equals nothing, so that the prepared statements are found in the connection's cache.
    """
    remaining = iter(paths)
    while page := tuple(islice(remaining, _PAGES[-1])):
        length = next(size for size in _PAGES if size >= len(page))
        padded = page + (None,) * (length - len(page))
        yield from connection.execute(query.format(paths=", ".join("?" * length)), padded)


def _stored(number: int) -> Stored:
    return number if -_LIMIT <= number < _LIMIT else str(number)
