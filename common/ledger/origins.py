"""The verbs that keep where versions come from, as delivery notes tell it."""

import sqlite3
from collections.abc import Sequence

from common.files import Checksum
from common.ledger.columns import by_path, checksum_columns, checksum_of
from common.ledger.rows import Origin

_KEEP = """
    INSERT INTO origins (path, algorithm, digest, note, sent_at)
    VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (path, digest, algorithm) DO UPDATE SET
        note = excluded.note,
        sent_at = excluded.sent_at
    WHERE excluded.sent_at >= origins.sent_at
"""

_ORIGINS = """
    SELECT
        path,
        algorithm,
        digest,
        note,
        sent_at
    FROM origins
    WHERE path IN ({paths})
"""


def keep(connection: sqlite3.Connection, origins: Sequence[Origin]) -> None:
    """Keep them, within the caller's transaction; of two notes for one version, the later one."""
    rows = [
        (origin.path, *checksum_columns(origin.checksum), origin.note, origin.sent_at) for origin in origins
    ]
    connection.executemany(_KEEP, rows)


def origins(
    connection: sqlite3.Connection, paths: Sequence[bytes]
) -> dict[tuple[bytes, Checksum], tuple[bytes, int]]:
    """By version, the note that named it and when it was sent."""
    found = {}
    for path, algorithm, digest, note, sent_at in by_path(connection, _ORIGINS, paths):
        checksum = checksum_of(algorithm, digest)
        assert checksum is not None
        found[path, checksum] = (note, sent_at)
    return found
