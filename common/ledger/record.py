"""The verbs of discovery: which versions of a path are known, and entering what was found."""

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from common.ledger.columns import by_path, checksum_columns, checksum_of, fence_columns, fence_of
from common.ledger.pace import keep_pace
from common.ledger.rows import FAILED, Found, Recorded, Version
from common.ledger.states import States

_VERSIONS = """
    SELECT
        path,
        id,
        inode,
        size,
        mtime_ns,
        ctime_ns,
        algorithm,
        digest,
        state
    FROM files
    WHERE path IN ({paths})
    ORDER BY id DESC
"""

_INSERT = """
    INSERT INTO files (
        path, inode, size, mtime_ns, ctime_ns, algorithm, digest, state, bulky, found_at, changed_at
    )
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

# What is in flight keeps its fence: the worker compares it.
_RENEW = """
    UPDATE files
    SET inode = ?,
        size = ?,
        mtime_ns = ?,
        ctime_ns = ?,
        bulky = ?
    WHERE id = ?
        AND batch_id IS NULL
"""

_BEGIN_ANEW = """
    UPDATE files
    SET inode = ?,
        size = ?,
        mtime_ns = ?,
        ctime_ns = ?,
        bulky = ?,
        state = ?,
        settled = 0,
        step = NULL,
        attempts = 0,
        claims = 0,
        due_at = NULL,
        cause = '',
        reason = '',
        found_at = ?,
        changed_at = ?
    WHERE id = ?
        AND batch_id IS NULL
"""

_BACKFILL = """
    INSERT INTO files (
        path, inode, size, mtime_ns, ctime_ns, algorithm, digest, state, settled, found_at, changed_at
    )
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?)
    ON CONFLICT DO NOTHING
"""

_IDENTIFY = """
    UPDATE files
    SET algorithm = ?,
        digest = ?
    WHERE id = ?
        AND batch_id IS NULL
"""


def versions(connection: sqlite3.Connection, paths: Sequence[bytes]) -> dict[bytes, tuple[Version, ...]]:
    """The known versions of each path that has any, newest first."""
    known: defaultdict[bytes, list[Version]] = defaultdict(list)
    for path, entry, inode, size, mtime_ns, ctime_ns, algorithm, digest, state in by_path(
        connection, _VERSIONS, paths
    ):
        fence = fence_of(inode, size, mtime_ns, ctime_ns)
        known[path].append(Version(entry, fence, checksum_of(algorithm, digest), state))
    return {path: tuple(of_path) for path, of_path in known.items()}


def record(connection: sqlite3.Connection, states: States, found: Sequence[Found], now_ms: int) -> Recorded:
    """Enter found files, within the caller's transaction."""
    page = {file.path: file for file in found}
    known = versions(connection, tuple(page))
    changes = _Changes()
    for file in page.values():
        if file.checksum is None:
            _compare_fences(file, known.get(file.path, ()), states, changes)
        else:
            _compare_checksums(file, known.get(file.path, ()), states, changes)
    _write(connection, changes, states, now_ms)
    return Recorded(
        added=len(changes.new),
        renewed=len(changes.anew) + len(changes.renewed),
        unknown=tuple(changes.unknown),
    )


def backfill(connection: sqlite3.Connection, state: str, found: Sequence[Found], now_ms: int) -> int:
    """Enter versions in a settled state, within the caller's transaction; known ones stay as they are."""
    rows = [
        (
            file.path,
            *fence_columns(file.fence),
            *checksum_columns(file.checksum),
            state,
            now_ms,
            now_ms,
        )
        for file in found
    ]
    return connection.executemany(_BACKFILL, rows).rowcount if rows else 0


@dataclass(slots=True)
class _Changes:
    """What a page of found files changes."""

    new: list[Found] = field(default_factory=list)
    anew: list[tuple[Version, Found]] = field(default_factory=list)
    """Known versions that begin anew."""
    renewed: list[tuple[Version, Found]] = field(default_factory=list)
    """Known versions that stay where they are, with another fence."""
    identified: list[tuple[Version, Found]] = field(default_factory=list)
    """Entries whose digest was not known, and is now."""
    unknown: list[Found] = field(default_factory=list)


def _compare_fences(file: Found, known: Sequence[Version], states: States, changes: _Changes) -> None:
    """Decide on a file that has not been hashed."""
    same = next((version for version in known if version.fence == file.fence), None)
    unhashed = next((version for version in known if version.checksum is None), None)
    if same is not None:
        if same.state in states.again and same.checksum is None:
            changes.anew.append((same, file))
        elif same.state in states.again:
            # It was gone, and yet is here: its fence alone is no proof that this is the same content.
            (changes.unknown if states.hashes_first else changes.new).append(file)
    elif unhashed is not None:
        if _idle(unhashed, states):
            changes.anew.append((unhashed, file))
    elif known and states.hashes_first:
        changes.unknown.append(file)
    else:
        changes.new.append(file)


def _compare_checksums(file: Found, known: Sequence[Version], states: States, changes: _Changes) -> None:
    """Decide on a file that has been hashed."""
    same = next((version for version in known if version.checksum == file.checksum), None)
    unhashed = next((version for version in known if version.checksum is None), None)
    if same is not None:
        if same.state in states.again:
            changes.anew.append((same, file))
        elif same.fence != file.fence:
            changes.renewed.append((same, file))
    elif unhashed is not None and _idle(unhashed, states):
        changes.identified.append((unhashed, file))
        changes.anew.append((unhashed, file))
    else:
        changes.new.append(file)


def _idle(version: Version, states: States) -> bool:
    """Whether an unhashed entry may be given another content: nothing is being done with it."""
    return version.state in (states.first.source, FAILED) or version.state in states.again


def _write(connection: sqlite3.Connection, changes: _Changes, states: States, now_ms: int) -> None:
    state = states.first.source
    new = [
        (
            file.path,
            *fence_columns(file.fence),
            *checksum_columns(file.checksum),
            *(state, file.bulky, now_ms, now_ms),
        )
        for file in changes.new
    ]
    identified = [(*checksum_columns(file.checksum), version.id) for version, file in changes.identified]
    anew = [
        (*fence_columns(file.fence), file.bulky, state, now_ms, now_ms, version.id)
        for version, file in changes.anew
    ]
    renewed = [(*fence_columns(file.fence), file.bulky, version.id) for version, file in changes.renewed]
    for query, rows in ((_INSERT, new), (_IDENTIFY, identified), (_BEGIN_ANEW, anew), (_RENEW, renewed)):
        if rows:
            connection.executemany(query, rows)
    arrived = [*changes.new, *(file for _, file in changes.anew)]
    if arrived:
        keep_pace(connection, state, len(arrived), sum(file.fence.size for file in arrived), now_ms)
