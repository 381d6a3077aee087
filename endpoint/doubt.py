"""Whether a file or the catalogue is to blame: what failed while nothing else went in is tried once more."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeGuard

from common.clock import now_ms
from common.entry import Batch, Done, Failed, Outcome, Report
from common.errors import Scope
from common.ledger.ledger import Ledger
from common.wording import path as shown
from endpoint.lifecycle import IN_DOUBT, INGEST

log = logging.getLogger(__name__)

_ONCE_MORE = "tried once more, for the catalogue has ingested another file since"
_REST = 10.0
"""So many times as long as a file took that was tried once more in vain, no other one is."""


class Doubt:
    """Knows what failed over the catalogue while that may have been at fault. Times are seconds.

    Parameters
    ----------
    attempts
        So often a file is tried.
    """

    def __init__(self, ledger: Ledger, attempts: int) -> None:
        self._ledger = ledger
        self._attempts = attempts
        self._is_well = False
        """Whether the catalogue ingested any file of the last batch."""
        self._rests_until = 0.0

    def learn(self, batch: Batch, report: Report, now: float) -> Report:
        """What became of a batch of ingestion, with what is in doubt told as such.

        In doubt are files that are spent now, and since whose first failure nothing was ingested. One that
        was tried once more has one attempt more than there are, and is in doubt no longer.
        """
        self._is_well = any(map(is_ingested, report.outcomes))
        if not self._is_well and any(entry.attempts >= self._attempts for entry in batch.entries):
            self._rests_until = now + _REST * sum(report.phases.values())
        last = {entry.id: entry for entry in batch.entries if entry.attempts + 1 == self._attempts}

        def doubted(outcome: Outcome) -> Outcome:
            entry = last.get(outcome.entry_id)
            if entry is None or not _is_blamed(outcome) or self._ledger.has_passed_since(INGEST, entry):
                return outcome
            hint = f"{outcome.failure.hint}; it is tried once more when another file has been ingested"
            return replace(outcome, failure=replace(outcome.failure, cause=IN_DOUBT, hint=hint))

        return replace(report, outcomes=tuple(map(doubted, report.outcomes)))

    def retry_one(self, running: Sequence[Batch], now: float) -> None:
        """Have one file tried once more, if the catalogue is well.

        One at a time, and only while nothing else waits for ingestion or is in it: it may be at fault after
        all, and take long.
        """
        if not self._is_well or running or now < self._rests_until:
            return
        totals = self._ledger.totals()
        if any(total.state == INGEST.source and total.files for total in totals):
            return
        self._is_well = False
        if any(total.cause == IN_DOUBT for total in totals):
            path = self._ledger.once_more(INGEST, IN_DOUBT, reason=_ONCE_MORE, now_ms=now_ms())
            if path is not None:
                log.info("%s: %s", shown(path), _ONCE_MORE)


def is_ingested(outcome: Outcome) -> bool:
    """Whether the catalogue has taken a file."""
    return isinstance(outcome, Done) and outcome.state == INGEST.target


def _is_blamed(outcome: Outcome) -> TypeGuard[Failed]:
    """Whether the file alone is held to be at fault, though that may pass."""
    return isinstance(outcome, Failed) and outcome.failure.scope is Scope.FILE and outcome.failure.transient
