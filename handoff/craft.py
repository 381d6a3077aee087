"""What the handoff manager decides: what may be claimed, what came of it, and what lasts."""

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from common import __version__
from common.clock import now_ms
from common.disks import Disks, row
from common.engine import Claim, Means
from common.entry import Batch, Done, Failed, Report
from common.errors import Failure, Scope
from common.files import BufferedFile
from common.footing import missing_disk
from common.gate import Gate
from common.ledger.rows import ManagerRow
from common.lifecycle import Step
from common.mishaps import Mishaps, tell, worker_died
from common.mounts import Ground
from common.pool import Crash
from common.sweep import sweep_every
from common.tasks import Chore, Identify
from handoff.config import HandoffConfig
from handoff.courier import Look, Sweep
from handoff.delivery import News, batch_name
from handoff.lifecycle import HOLD, SEND
from handoff.outlook import Outlook
from handoff.receipts import Collection
from handoff.route import Orders, fast_algorithm, transfer_of
from handoff.survey import Survey


class Handoff:
    """What the handoff manager decides; the craft of its engine."""

    def __init__(self, config: HandoffConfig, means: Means, grounds: tuple[Ground, ...]) -> None:
        self._config = config
        self._grounds = grounds
        self._ledger = means.ledger
        self._started_at = means.started_at
        self._outlook = Outlook(config.general.min_free)
        self._orders: Orders | None = None
        self._receipts = Collection(means.ledger)
        self._leftovers: set[bytes] = set()
        self._mishaps = Mishaps()
        self._holding = Gate("delivered files wait in the buffer", "the holding area takes files again")
        self._sweep_every = sweep_every(config.general.expiration_time)
        self._next_sweep = time.monotonic() + min(self._sweep_every, 60.0)
        self._disks = Disks(
            {
                "buffer": os.fsencode(config.handoff.buffer),
                "holding": os.fsencode(config.handoff.holding),
                "ledger": os.fsencode(config.ledger_path.parent),
            },
            goal="holding",
            called="holding area",
            floor=config.general.min_free,
            scope=Scope.HANDOFF,
        )

    def chore(self, in_flight: Sequence[Batch], now: float) -> Chore | None:
        if self._outlook.is_look_due(now):
            is_first = self._outlook.survey is None
            leftovers, self._leftovers = tuple(self._leftovers), set()
            self._outlook.look_began()
            # The algorithm is chosen when they have been seen for the first time.
            make = self._ledger.algorithm is None
            keep = tuple(batch_name(self._ledger.id, batch) for batch in in_flight)
            return Chore(Look(is_first, keep, leftovers, self._receipts.recorded, make))
        if now >= self._next_sweep:
            self._next_sweep = now + self._sweep_every
            return Chore(Sweep(self._config.general.expiration_time))
        return None

    def chore_done(self, chore: Chore, result: object, now: float) -> None:
        if not isinstance(chore.what, Look):
            return
        if isinstance(result, Survey):
            algorithm = self._ledger.choose_algorithm(fast_algorithm(result))
            self._orders = Orders(
                algorithm,
                transfer_of(self._config, result),
                result.openssl,
                result.rsync_version,
            )
            self._receipts.note(result.receipts, anew=True)
            self._outlook.looked(result, now)
            if self._receipts.recorded:
                # The next one removes them there, and brings what has come since.
                self._outlook.look_soon()
        else:
            self._leftovers.update(chore.what.leftovers)
            failure = worker_died(result, Scope.HANDOFF) if isinstance(result, Crash) else result
            assert isinstance(failure, Failure)
            self._outlook.look_failed(failure, now)

    def allowance(self, step: Step, worker: int, in_flight: Sequence[Batch], now: float) -> Claim | None:
        running = [batch for batch in in_flight if batch.step == step]
        if self._disks.lacks_room_for_ledger:
            return None
        claim = self._may_hold(running, now) if step == HOLD else self._may_send(running, now)
        return claim and replace(claim, bulky=None if self._may_be_bulky(step, in_flight) else False)

    def identify(self, take: Callable[[int, int], tuple[BufferedFile, ...]]) -> Identify | None:
        if self._ledger.algorithm is None:
            return None
        files = take(self._config.general.chunk_size, self._config.general.batch_bytes)
        return Identify(files, self._ledger.algorithm) if files else None

    def worked(self, batch: Batch, result: object, now: float) -> Report:
        if isinstance(result, Crash):
            self._clear_away(batch)
            return self._mishaps.take_back(batch, Report((), error=result.reason))
        assert isinstance(result, Report)
        if isinstance(result.news, News):
            self._outlook.room = result.news.room or self._outlook.room
            self._receipts.note(result.news.receipts, anew=False)
        result = self._outlook.spared(batch, result)
        failures = [outcome.failure for outcome in result.outcomes if isinstance(outcome, Failed)]
        shared = next((failure for failure in failures if failure.scope is not Scope.FILE), None)
        if shared is not None:
            self._clear_away(batch)
            self._fail(batch.step, shared, now, max(entry.fence.size for entry in batch.entries))
        elif _has_worked(batch.step, result):
            self._succeed(batch.step)
        report = self._mishaps.take_back(batch, result)
        tell(batch, report)
        return report

    def beat(self) -> None:
        self._disks.measure()
        failure = self._outlook.failure
        there = {f"endpoint_{name}": row(room) for name, room in self._outlook.room.items()}
        self._ledger.beat(
            ManagerRow(
                pid=os.getpid(),
                host=socket.gethostname(),
                version=__version__,
                started_at=self._started_at,
                heartbeat_at=now_ms(),
                endpoint_state=self._outlook.state,
                endpoint_since=self._outlook.since,
                endpoint_reason=f"{failure.cause}: {failure.reason}" if failure else "",
                paused=self.paused(),
                disk=self._disks.rows() | there,
            )
        )

    def patience(self, now: float) -> float:
        holding = self._holding.patience(now)
        waits = [self._outlook.patience(now), self._next_sweep - now]
        return max(0.0, min(waits if holding is None else [*waits, holding]))

    def paused(self) -> str:
        if self._disks.lacks_room_for_ledger:
            return "the disk of the ledger is full"
        failure = self._outlook.failure or self._holding.failure
        failure = failure or missing_disk(self._grounds, Scope.HANDOFF)
        return (
            "; ".join(filter(None, (f"{failure.cause}: {failure.reason}", failure.hint))) if failure else ""
        )

    def hopeful(self) -> bool:
        return self._outlook.is_hopeful or self._holding.is_hopeful

    def _may_be_bulky(self, step: Step, in_flight: Sequence[Batch]) -> bool:
        """One worker is kept free of bulky files, so that they never hold up the small ones."""
        if step == HOLD and not self._disks.copies:
            return True
        general = self._config.general
        slow = [batch for batch in in_flight if batch.step == SEND or self._disks.copies]
        bulky = sum(batch.bytes > general.batch_bytes for batch in slow)
        return bulky < max(1, general.num_threads - 1)

    def _may_send(self, running: Sequence[Batch], now: float) -> Claim | None:
        if self._orders is None or not self._outlook.may_send(is_sending=bool(running), now=now):
            return None
        general = self._config.general
        portion = self._portion(self._outlook.spare, running, on_trial=self._outlook.is_on_trial)
        if portion is None:
            return None
        return Claim(
            *portion,
            newest_first=general.order == "newest",
            orders=replace(self._orders, recorded=self._receipts.recorded, passing=self._receipts.passing),
        )

    def _may_hold(self, running: Sequence[Batch], now: float) -> Claim | None:
        if not self._holding.lets_through(is_running=bool(running), now=now):
            return None
        lack = self._disks.lack()
        if lack:
            self._fail(HOLD, lack, now)
            return None
        portion = self._portion(self._disks.spare, running, on_trial=self._holding.is_on_trial)
        return portion and Claim(*portion)

    def _portion(
        self, spare: int | None, running: Sequence[Batch], *, on_trial: bool
    ) -> tuple[int, int] | None:
        """Files and bytes of a batch: no more than there is space for, and after a failure one file first."""
        general = self._config.general
        limit = 1 if on_trial else general.chunk_size
        if spare is None:
            return limit, general.batch_bytes
        spare -= sum(batch.bytes for batch in running)
        if spare <= 0 and running:
            return None
        return limit, max(1, min(general.batch_bytes, spare))

    def _fail(self, step: Step, failure: Failure, now: float, needed: int = 0) -> None:
        if step == SEND:
            self._outlook.fail(failure, now, needed=needed)
            return
        self._holding.fail(failure, now)

    def _succeed(self, step: Step) -> None:
        if step == SEND:
            self._outlook.succeed()
        else:
            self._holding.succeed()

    def _clear_away(self, batch: Batch) -> None:
        """What was sent of a batch that broke off is removed from staging by the next look."""
        if batch.step == SEND:
            self._leftovers.add(batch_name(self._ledger.id, batch))
            self._outlook.look_soon()


def _has_worked(step: Step, report: Report) -> bool:
    """Whether what all files need for the step is well, however the files of this batch fared.

    An endpoint that has looked at a poison file has answered: the others must not wait for it.
    """
    if step == SEND:
        return not {"ask", "place"}.isdisjoint(report.phases)
    return any(isinstance(outcome, Done) and outcome.state == step.target for outcome in report.outcomes)
