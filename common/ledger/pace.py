"""How many files, and bytes, reached a state lately, second by second."""

import sqlite3

_KEPT_SECONDS = 3600

_COUNT = """
    INSERT INTO pace (state, second, files, bytes)
    VALUES (?, ?, ?, ?)
    ON CONFLICT (state, second) DO UPDATE SET
        files = files + excluded.files,
        bytes = bytes + excluded.bytes
"""

_FORGET = """
    DELETE FROM pace
    WHERE state = ?
        AND second < ?
"""

# A second that lies in the future was counted before the clock was set back.
_RATE = """
    SELECT
        ifnull(sum(files), 0),
        ifnull(sum(bytes), 0)
    FROM pace
    WHERE state = ?
        AND second > ?
        AND second <= ?
"""


def keep_pace(connection: sqlite3.Connection, state: str, files: int, size: int, now_ms: int) -> None:
    """Count files that have just reached a state."""
    second = now_ms // 1000
    connection.execute(_COUNT, (state, second, files, size))
    connection.execute(_FORGET, (state, second - _KEPT_SECONDS))


def pace(connection: sqlite3.Connection, state: str, window: int, now_ms: int) -> tuple[int, int]:
    """Files and bytes that have reached a state within the last `window` seconds, an hour at most."""
    second = now_ms // 1000
    files, size = connection.execute(_RATE, (state, second - window, second)).fetchone()
    return files, size
