"""The counts that triggers keep, for the writer and the reader alike."""

import sqlite3

from common.ledger.rows import Total

_TOTALS = """
    SELECT
        state,
        cause,
        files,
        bytes
    FROM totals
    WHERE files > 0
"""


def totals(connection: sqlite3.Connection) -> tuple[Total, ...]:
    """Files and bytes by state and cause."""
    return tuple(Total(*row) for row in connection.execute(_TOTALS))
