"""What the endpoint manager decides: what may be claimed, what came of it, and what lasts."""

import logging
import os
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeGuard

from common import __version__
from common.clock import now_ms
from common.disks import Disks
from common.engine import Claim, Means
from common.entry import Batch, Done, Failed, Outcome, Report
from common.errors import Scope
from common.files import BufferedFile, Checksum
from common.footing import missing_disk
from common.gate import Gate
from common.ledger.rows import ManagerRow, Version
from common.lifecycle import Step
from common.mishaps import Mishaps, tell
from common.pool import Crash
from common.tasks import Chore, Identify
from endpoint.cleaner import Cleaner, Rules
from endpoint.config import EndpointConfig
from endpoint.doubt import Doubt, is_ingested
from endpoint.lifecycle import ABSENT, INGEST, STORE, STORED, VERIFY
from endpoint.premises import Premises
from endpoint.receipts import Receipts
from endpoint.retirement import Retirement
from endpoint.verification import Findings

log = logging.getLogger(__name__)

_UNBOUNDED = 1 << 62
_REACH = 10_000
"""Of so many files that wait one is chosen to see whether the catalogue is well."""


class Endpoint:
    """What the endpoint manager decides; the craft of its engine."""

    def __init__(self, config: EndpointConfig, premises: Premises, means: Means) -> None:
        self._config = config
        self._premises = premises
        self._ledger = means.ledger
        self._started_at = means.started_at
        self._gates = {
            VERIFY: Gate("files wait in the buffer", "files are verified again"),
            STORE: Gate("verified files wait in the buffer", "storage takes files again"),
            INGEST: Gate("stored files wait", "the catalogue takes files again", most=10.0),
        }
        self._doubt = Doubt(means.ledger, config.general.retry.attempts)
        self._mishaps = Mishaps()
        self._receipts = Receipts(means.ledger, premises.staging)
        self._retirement = Retirement(means.ledger, premises.staging)
        self._cleaner = Cleaner(_rules(config, premises), means.ledger, time.monotonic())
        places = {"buffer": premises.buffer, "ledger": os.fsencode(config.ledger_path.parent)}
        self._disks = Disks(
            places if premises.storage is None else {**places, "storage": premises.storage},
            goal=None if premises.storage is None else "storage",
            called="storage",
            floor=config.general.min_free,
            scope=Scope.ENDPOINT,
        )

    def chore(self, in_flight: Sequence[Batch], now: float) -> Chore | None:
        errand = self._cleaner.errand(now)
        return None if errand is None else Chore(errand)

    def chore_done(self, chore: Chore, result: object, now: float) -> None:
        self._cleaner.learn(chore.what, result, now)

    def allowance(self, step: Step, worker: int, in_flight: Sequence[Batch], now: float) -> Claim | None:
        running = [batch for batch in in_flight if batch.step == step]
        gate = self._gates[step]
        if self._disks.lacks_room_for_ledger or not gate.lets_through(is_running=bool(running), now=now):
            return None
        if step == INGEST:
            if not gate.is_on_trial:
                self._doubt.retry_one(running, now)
            return self._may_ingest(worker, on_trial=gate.is_on_trial)
        bulky = None if self._may_be_bulky(worker, in_flight) else False
        if step == STORE:
            claim = self._may_store(running, now)
            return claim and replace(claim, bulky=bulky)
        return Claim(*self._portion(on_trial=gate.is_on_trial), bulky=bulky)

    def identify(self, take: Callable[[int, int], tuple[BufferedFile, ...]]) -> Identify | None:
        """Nothing is hashed before it is entered: verification does that."""
        return None

    def worked(self, batch: Batch, result: object, now: float) -> Report:
        if isinstance(result, Crash):
            return self._mishaps.take_back(batch, Report((), error=result.reason))
        assert isinstance(result, Report)
        report = self._learn(batch, result)
        failures = [outcome.failure for outcome in report.outcomes if isinstance(outcome, Failed)]
        shared = next((failure for failure in failures if failure.scope is not Scope.FILE), None)
        if shared is not None:
            self._gates[batch.step].fail(shared, now)
        elif any(batch.step != INGEST or not _may_pass(outcome) for outcome in report.outcomes):
            self._gates[batch.step].succeed()
        if batch.step == INGEST:
            if any(map(is_ingested, report.outcomes)):
                self._note_catalogue()
            report = self._doubt.learn(batch, report, now)
        notes = self._receipts.write(batch, report, now_ms())
        if batch.step == STORE:
            # A note is needed until its last file is stored, or is seen to be, as duplicates are.
            self._retirement.touch(notes, now)
        elif isinstance(report.news, Findings) and any(map(_is_duplicate, report.outcomes)):
            self._retirement.touch({origin.note for origin in report.news.origins}, now)
        report = self._mishaps.take_back(batch, self._without_known_digests(report))
        tell(batch, report)
        return report

    def beat(self) -> None:
        self._disks.measure()
        self._retirement.proceed(time.monotonic())
        self._ledger.beat(
            ManagerRow(
                pid=os.getpid(),
                host=socket.gethostname(),
                version=__version__,
                started_at=self._started_at,
                heartbeat_at=now_ms(),
                paused=self.paused(),
                disk=self._disks.rows(),
            )
        )

    def patience(self, now: float) -> float:
        waits = [wait for gate in self._gates.values() if (wait := gate.patience(now)) is not None]
        return max(0.0, min([*waits, self._cleaner.patience(now)]))

    def paused(self) -> str:
        if self._disks.lacks_room_for_ledger:
            return "the disk of the ledger is full"
        failure = next((gate.failure for gate in self._gates.values() if gate.failure), None)
        failure = failure or missing_disk(self._premises.grounds, Scope.ENDPOINT)
        return f"{failure.cause}: {failure.reason}; {failure.hint}" if failure else ""

    def hopeful(self) -> bool:
        return any(gate.is_hopeful for gate in self._gates.values())

    def _may_ingest(self, worker: int, *, on_trial: bool) -> Claim | None:
        """Only some of the workers keep a catalogue."""
        ingester = self._config.ingester
        if worker >= ingester.num_workers:
            return None
        if not on_trial:
            return Claim(ingester.batch_size, _UNBOUNDED)
        # The oldest may be those that the catalogue fails over: one of all that wait, and rather a new one.
        waiting = sum(total.files for total in self._ledger.totals() if total.state == INGEST.source)
        skip = int(max(1, min(waiting, _REACH)) ** random.random()) - 1
        return Claim(1, _UNBOUNDED, newest_first=True, skip=skip)

    def _note_catalogue(self) -> None:
        database = self._premises.database
        if database is not None and database != self._ledger.catalogue:
            self._ledger.note_catalogue(database)

    def _may_store(self, running: Sequence[Batch], now: float) -> Claim | None:
        lack = self._disks.lack()
        if lack:
            self._gates[STORE].fail(lack, now)
            return None
        limit, max_bytes = self._portion(on_trial=self._gates[STORE].is_on_trial)
        spare = self._disks.spare
        if spare is None:
            return Claim(limit, max_bytes)
        spare -= sum(batch.bytes for batch in running)
        return None if spare <= 0 and running else Claim(limit, max(1, min(max_bytes, spare)))

    def _portion(self, *, on_trial: bool) -> tuple[int, int]:
        """Files and bytes of a batch; after a failure one file first."""
        general = self._config.general
        return 1 if on_trial else general.chunk_size, general.batch_bytes

    def _may_be_bulky(self, worker: int, in_flight: Sequence[Batch]) -> bool:
        """One worker is kept free of bulky files, which so never hold up small ones, nor ingestion."""
        general, ingesters = self._config.general, self._config.ingester.num_workers
        if worker < ingesters < general.num_threads:
            return False
        slow = sum(batch.bytes > general.batch_bytes for batch in in_flight if batch.step != INGEST)
        return slow < max(1, general.num_threads - 1)

    def _learn(self, batch: Batch, report: Report) -> Report:
        """Keep what verifying has brought beside the outcomes, and take on what storage has unknown to us."""
        if not isinstance(report.news, Findings):
            return report
        origins = report.news.origins
        for wrong in report.news.malformed:
            log.warning("a delivery note has what makes no sense: %s", wrong)
        self._ledger.keep_origins(origins)
        return replace(report, outcomes=self._adopted(batch, report.outcomes))

    def _adopted(self, batch: Batch, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        """What storage has, and this ledger has never stored, is no duplicate: it goes on."""
        paths = {entry.id: entry.path for entry in batch.entries}
        doubles = [outcome for outcome in outcomes if _is_duplicate(outcome) and outcome.checksum]
        if not doubles:
            return tuple(outcomes)
        known = self._ledger.versions([paths[outcome.entry_id] for outcome in doubles])
        adopted = {
            outcome.entry_id: replace(outcome, state=VERIFY.target, reason="storage had it already")
            for outcome in doubles
            if not any(
                version.id != outcome.entry_id and _is_in_storage(version, outcome.checksum)
                for version in known.get(paths[outcome.entry_id], ())
            )
        }
        return tuple(adopted.get(outcome.entry_id, outcome) for outcome in outcomes)

    def _without_known_digests(self, report: Report) -> Report:
        """A duplicate is told beside the version that it doubles, and does not become it."""
        return replace(
            report,
            outcomes=tuple(
                replace(outcome, checksum=None) if _is_duplicate(outcome) else outcome
                for outcome in report.outcomes
            ),
        )


def _is_duplicate(outcome: Outcome) -> TypeGuard[Done]:
    return isinstance(outcome, Done) and outcome.state == "duplicate"


def _rules(config: EndpointConfig, premises: Premises) -> Rules:
    cleaner = config.cleaner
    return Rules(
        directories=tuple(map(os.fsencode, cleaner.directories)),
        files_older_than=cleaner.files_older_than,
        directories_empty_for=cleaner.directories_empty_for_more_than,
        every=cleaner.scan_interval,
        buffer=premises.buffer,
        storage=premises.storage,
        staging=premises.staging,
    )


def _may_pass(outcome: Outcome) -> bool:
    """Whether it is a failure that may be the fault of the catalogue as well as that of the file."""
    return isinstance(outcome, Failed) and outcome.failure.transient


def _is_in_storage(version: Version, found: Checksum | None) -> bool:
    """Whether a known version is what lies under its name in storage, where there is this content."""
    if version.checksum is None or found is None:
        return False
    if version.checksum.algorithm == found.algorithm:
        return version.checksum == found and version.state not in ABSENT
    # The digests can't be compared, but only one version can be there.
    return version.state in STORED
