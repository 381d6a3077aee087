"""Receipts of the endpoint manager, from a visit into the ledger."""

import logging
from collections.abc import Iterable

from common.exchange import Receipts
from common.ledger.ledger import Ledger
from common.ledger.rows import Receipt

log = logging.getLogger(__name__)

_PASSED_MOST = 500
"""So many names are sent along at most, to be passed over."""


class Collection:
    """Notes receipts, and knows which of them may be removed at the endpoint.

    A file of receipts is removed once every line of it is noted. Others may write there too: what
    tells of versions that this ledger does not know is left alone, and not asked for again until
    the next look around.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.recorded: tuple[bytes, ...] = ()
        """Those of the latest visit that may go."""
        self.passing: tuple[bytes, ...] = ()
        self._told: set[bytes] = set()

    def note(self, receipts: Receipts, *, anew: bool) -> None:
        """Take in what a visit has brought; `anew` when nothing was passed over there."""
        known = self._known(receipts.records)
        self._ledger.receipts(tuple(known))
        self.recorded = tuple(name for name, lines in receipts.files.items() if known.issuperset(lines))
        foreign = tuple(name for name in receipts.files if name not in self.recorded)
        self.passing = (*(() if anew else self.passing), *foreign)[-_PASSED_MOST:]
        if not self._told.issuperset(foreign):
            self._told = set(self.passing)
            log.info(
                "%d receipts at the endpoint tell of files that this ledger does not know, or make no sense; "
                "they are left alone: %s",
                len(foreign),
                next(iter((*receipts.malformed, foreign[0].decode()))),
            )

    def _known(self, receipts: Iterable[Receipt]) -> set[Receipt]:
        """Those of versions that are in the ledger."""
        told = tuple(receipts)
        versions = self._ledger.versions(tuple({receipt.path for receipt in told})) if told else {}
        known = {(path, version.checksum) for path, some in versions.items() for version in some}
        return {receipt for receipt in told if (receipt.path, receipt.checksum) in known}
