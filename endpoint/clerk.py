"""What a worker of the endpoint manager does: verify, store, ingest, and tidy up."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from common.entry import Batch, Done, Failed, Outcome, Report
from common.errors import Failure, Scope
from common.footing import doubted, missing_disk
from common.pool import Tell
from common.tasks import Chore, Task, Work
from endpoint.cleaning import Look, Remove, Sweep, run_errand
from endpoint.lifecycle import INGEST, STORE
from endpoint.notes import Notes
from endpoint.premises import Premises
from endpoint.store import Storage
from endpoint.verification import Findings, Verification


@dataclass(frozen=True, slots=True)
class ClerkRecipe:
    """Makes clerks."""

    premises: Premises

    @contextmanager
    def open(self, number: int, tell: Tell) -> Iterator["Clerk"]:
        with ExitStack() as stack:
            yield Clerk(self.premises, tell, stack)


class Clerk:
    """Takes batches through their steps, one after the other."""

    def __init__(self, premises: Premises, tell: Tell, stack: ExitStack) -> None:
        self._premises = premises
        self._tell = tell
        self._stack = stack
        self._notes = Notes(premises.staging)
        self._ingest: Callable[[Batch], tuple[Outcome, ...]] | None = None

    def work(self, task: Task) -> object:
        match task:
            case Work(batch):
                return self._take(batch)
            case Chore(Look() | Remove() | Sweep() as errand):
                return run_errand(errand, time.time())
        raise TypeError(f"no clerk knows what to do with {task!r}")

    def _take(self, batch: Batch) -> Report:
        """Take a batch through its step, if the disks for that are there, before and after."""
        began = time.monotonic()
        missing = missing_disk(self._premises.grounds, Scope.ENDPOINT)
        if missing:
            return Report(tuple(Failed(entry.id, missing) for entry in batch.entries))
        outcomes, findings = self._outcomes(batch)
        report = Report(outcomes, {batch.step.working: time.monotonic() - began}, news=findings)
        missing = missing_disk(self._premises.grounds, Scope.ENDPOINT)
        if missing and batch.step == INGEST:
            return replace(report, outcomes=self._believed(report.outcomes, missing))
        return doubted(report, missing) if missing else report

    def _believed(self, outcomes: Sequence[Outcome], missing: Failure) -> tuple[Outcome, ...]:
        """What can be believed of an ingestion whose disk went meanwhile.

        A file that is gone with its disk has not been taken by the catalogue; nor is it lost.
        """
        stays = self._premises.storage is not None
        return tuple(
            outcome if stays and isinstance(outcome, Done) else Failed(outcome.entry_id, missing)
            for outcome in outcomes
        )

    def _outcomes(self, batch: Batch) -> tuple[tuple[Outcome, ...], Findings | None]:
        if batch.step == INGEST:
            return self._ingested(batch), None
        if batch.step == STORE:
            self._tell("store", 0)
            return Storage(self._premises).take(batch.entries), None
        return Verification(self._premises, self._notes, self._tell).take(batch)

    def _ingested(self, batch: Batch) -> tuple[Outcome, ...]:
        if self._ingest is None:
            # Here, for only some of the workers ever ingest.
            from endpoint.catalogues.host import Host
            from endpoint.ingestion import Ingestion

            premises = self._premises
            host = self._stack.enter_context(
                Host(premises.catalogue, premises.catalogue_config, timeout=premises.timeout)
            )
            self._ingest = Ingestion(premises, host, self._tell).take
        return self._ingest(batch)
