"""What SQLite's errors mean to an operator."""

from common.errors import LedgerError


class LedgerBusy(LedgerError):  # noqa: N818 - it says what is the case
    """Another process kept the ledger locked for too long; the next try may succeed."""


class LedgerFull(LedgerError):  # noqa: N818 - it says what is the case
    """There is no space to write; the transaction was rolled back, and may succeed once there is."""
