"""Receipts: what the handoff manager is told has become of its files."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

from common.entry import Batch, Done, Report
from common.exchange import RECEIPT_STATES, receipt_lines
from common.files import Checksum
from common.ledger.ledger import Ledger
from common.ledger.rows import Receipt
from common.logs import Steady

log = logging.getLogger(__name__)


class Receipts:
    """Writes a file of receipts for each delivery note that a batch has files of.

    They are written before the ledger says the same: after a crash in between the batch is done, and
    told, once more. A handoff manager reads only what tells of its own files, hence a file a note.
    """

    def __init__(self, ledger: Ledger, staging: bytes | None) -> None:
        self._ledger = ledger
        self._directory = None if staging is None else os.path.join(staging, b".receipts")
        self._steady = Steady()

    def write(self, batch: Batch, report: Report, now_ms: int) -> tuple[bytes, ...]:
        """Tell of what a batch has stored or ingested; a duplicate is told as what it is known as.

        Returns the notes that named what is told of.
        """
        if self._directory is None:
            return ()
        told = self._told(batch, report)
        if not told:
            return ()
        origins = self._ledger.origins([path for path, _, _ in told])
        by_note: defaultdict[bytes, list[Receipt]] = defaultdict(list)
        for path, checksum, state in told:
            if (path, checksum) in origins:
                by_note[origins[path, checksum][0]].append(Receipt(path, checksum, state, now_ms))
        for note, receipts in by_note.items():
            self._place(b"%s-%s-%d.jsonl" % (note, batch.step.target.encode(), batch.id), receipts)
        return tuple(by_note)

    def _told(self, batch: Batch, report: Report) -> list[tuple[bytes, Checksum, str]]:
        entries = {entry.id: entry for entry in batch.entries}
        told: list[tuple[bytes, Checksum, str]] = []
        duplicates: list[tuple[bytes, Checksum]] = []
        for outcome in report.outcomes:
            entry = entries[outcome.entry_id]
            checksum = outcome.checksum or entry.checksum
            if not isinstance(outcome, Done) or checksum is None:
                continue
            if outcome.state in RECEIPT_STATES:
                told.append((entry.path, checksum, outcome.state))
            elif outcome.state == "duplicate":
                duplicates.append((entry.path, checksum))
        return told + self._known(duplicates)

    def _known(self, duplicates: Iterable[tuple[bytes, Checksum]]) -> list[tuple[bytes, Checksum, str]]:
        """What is in storage under these names, by the digests that came; they may be of another kind."""
        wanted = dict.fromkeys(duplicates)
        versions = self._ledger.versions([path for path, _ in wanted]) if wanted else {}
        return [
            (path, checksum, version.state)
            for path, checksum in wanted
            for version in versions.get(path, ())
            if version.state in RECEIPT_STATES
            and version.checksum
            and (version.checksum == checksum or version.checksum.algorithm != checksum.algorithm)
        ]

    def _place(self, name: bytes, receipts: Iterable[Receipt]) -> None:
        """Complete when it appears. That it can't be written keeps no file waiting."""
        assert self._directory is not None
        temporary = os.path.join(self._directory, b"." + name + b".tmp")
        try:
            os.makedirs(self._directory, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(receipt_lines(receipts))
            os.rename(temporary, os.path.join(self._directory, name))
        except OSError as error:
            with suppress(OSError):
                os.unlink(temporary)
            if self._steady.due("receipts", str(error.errno)):
                log.warning("receipts can't be written, and are left out: %s", error)
