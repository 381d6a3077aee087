"""Claim, work, move: the loop that serves one ledger with a pool of workers until it is told to stop."""

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Protocol

from common.clock import SetClock, now_ms
from common.discovery import Discovery
from common.entry import Batch, Report
from common.files import BufferedFile
from common.ledger.faults import LedgerBusy, LedgerFull
from common.ledger.ledger import Ledger
from common.lifecycle import Step
from common.patience import Patience
from common.pool import Answer, Crash, Pool
from common.retry import Backoff
from common.signals import Signals, Wish
from common.supervisor import Supervisor
from common.tasks import Chore, Identified, Identify, Task, Work
from common.wording import files

log = logging.getLogger(__name__)

_CHANGEOVER = 60.0
"""Seconds that work in flight gets to finish before an engine with another configuration takes over."""
_TEND = 60.0
"""Seconds between two times that the ledger is tended."""


@dataclass(frozen=True, slots=True)
class Claim:
    """How much of a step may be claimed for one worker, and what it is to be told beside."""

    limit: int
    """Files at most."""
    max_bytes: int
    newest_first: bool = False
    bulky: bool | None = None
    """False: only files that are not bulky; None: any."""
    skip: int = 0
    """So many of those that wait are passed over, though none that is due again."""
    orders: object = None


class Craft(Protocol):
    """What one kind of manager brings to the engine. Times are seconds by a monotonic clock."""

    def chore(self, in_flight: Sequence[Batch], now: float) -> Chore | None:
        """A task that no file asks for and that is due now (a look at the endpoint, say)."""

    def chore_done(self, chore: Chore, result: object, now: float) -> None:
        """Learn from its answer, which is a `Crash` if its worker died."""

    def allowance(self, step: Step, worker: int, in_flight: Sequence[Batch], now: float) -> Claim | None:
        """How much of the step may be claimed now for that worker; None while it must wait."""

    def identify(self, take: Callable[[int, int], tuple[BufferedFile, ...]]) -> Identify | None:
        """A task for some of the files to identify, `take(limit, max_bytes)`; None if there are none."""

    def worked(self, batch: Batch, result: object, now: float) -> Report:
        """Learn from what became of a batch, and say what is to be written to the ledger."""

    def beat(self) -> None:
        """Once a second: look at the disks, and write the heartbeat."""

    def patience(self, now: float) -> float:
        """Seconds until it wants to be asked again."""

    def paused(self) -> str:
        """Why it takes no new work; empty while it does."""

    def hopeful(self) -> bool:
        """Whether what it waits for outside may still come soon (for ``--once``)."""


@dataclass(frozen=True, slots=True)
class Means:
    """What every engine works with, whatever its craft."""

    ledger: Ledger
    patience: Patience
    """What it waits with while the ledger can't be written."""
    pool: Pool[Task, object]
    supervisor: Supervisor
    started_at: int
    """When the manager was started, in milliseconds since the epoch."""
    tick: Callable[[], None] | None = None
    """Called about four times a second, to draw a live table."""


class Engine:
    """One manager at work. Single-threaded: everything slow happens in the pool.

    Parameters
    ----------
    grace
        Seconds that work in flight gets to finish once a stop is asked for.
    """

    def __init__(
        self,
        craft: Craft,
        means: Means,
        discovery: Discovery,
        backoff: Backoff,
        *,
        grace: float = 5.0,
    ) -> None:
        self._craft = craft
        self._ledger = means.ledger
        self._patience = means.patience
        self._discovery = discovery
        self._pool = means.pool
        self._supervisor = means.supervisor
        self._backoff = backoff
        self._grace = grace
        self._tick = means.tick
        self._dice = random.Random()
        self._next_beat = 0.0
        self._next_tick = 0.0
        self._next_tend = time.monotonic() + _TEND
        self._clock = SetClock()
        self._last_answer = time.monotonic()
        self._starved = False

    def run(self, signals: Signals, *, once: bool, renew: Callable[[], bool]) -> None:
        """Serve until a stop is asked for, or with `once` until nothing is left that can be done.

        When the configuration is to be read again, `renew` does that, and says whether another engine
        takes over; this one then finishes what is in flight.

        Raises
        ------
        KeyboardInterrupt
            At the second Ctrl-C.
        LedgerError
            The ledger can't be used any more.
        """
        try:
            resumed = self._ledger.rescue(now_ms=now_ms())
            log.info("started: %s in flight before are resumed", files(resumed))
            # Where the clock was ahead when they failed, they would wait for days.
            self._ledger.bring_forward(now_ms() + round(self._backoff.most * 1000))
            self._supervisor.ready()
            self._serve(signals, once=once, renew=renew)
            self._ledger.rescue(now_ms=now_ms())
        except (LedgerBusy, LedgerFull) as error:
            if signals.wish is not Wish.STOP:
                raise
            log.warning("stopping: the last results are not written, and asked for again: %s", error)

    def _serve(self, signals: Signals, *, once: bool, renew: Callable[[], bool]) -> None:
        gives_way = False
        try:
            while signals.wish is Wish.GO_ON and not gives_way and not (once and self._is_over()):
                self._wait(signals)
                self._turn()
                gives_way = signals.wants_renewal() and self._gives_way(renew)
            if not gives_way:
                self._supervisor.stopping()
            self._wind_down(signals, patience=_CHANGEOVER if gives_way else math.inf)
            self._beat()
        finally:
            self._pool.close()

    def _gives_way(self, renew: Callable[[], bool]) -> bool:
        self._supervisor.reloading()
        if renew():
            return True
        self._supervisor.ready()
        return False

    def _turn(self) -> None:
        """One turn of the loop: look, listen, hand out, and say that it lives."""
        self._discovery.advance(time.monotonic(), now_ms())
        self._collect()
        self._hand_out()
        self._keep_time()

    def _wait(self, signals: Signals) -> None:
        """Sleep until an event, an answer, a signal, or the next thing that is due."""
        now = time.monotonic()
        due = [self._next_beat - now, self._craft.patience(now), self._discovery.patience(now)]
        if self._tick is not None:
            due.append(self._next_tick - now)
        wait([signals.fileno(), *self._discovery.filenos(), *self._pool.waitables()], max(0.0, min(due)))
        signals.drain()

    def _collect(self) -> None:
        for answer in self._pool.collect():
            self._take(answer)

    def _take(self, answer: Answer[Task, object]) -> None:
        """Learn from an answer, and write what came of it to the ledger."""
        now = self._last_answer = time.monotonic()
        if isinstance(answer.result, Crash):
            log.warning("worker %d: %s", answer.number, answer.result.reason)
            log.debug("%s", answer.result.detail)
        match answer.task:
            case Work(batch):
                report = self._craft.worked(batch, answer.result, now)
                self._ledger.finish(batch, report, backoff=self._delay, now_ms=now_ms())
            case Identify(files):
                identified = answer.result if isinstance(answer.result, Identified) else None
                self._discovery.identified(files, identified, now_ms())
            case Chore() as chore:
                self._craft.chore_done(chore, answer.result, now)

    def _delay(self, failures: int) -> float | None:
        return self._backoff.delay(failures, self._dice)

    def _hand_out(self) -> None:
        """Give every idle worker something to do, while there is something."""
        self._starved = False
        for number in self._pool.idle():
            # What one has nothing of, another may have: not every worker takes every step.
            task = self._next_task(number, time.monotonic())
            if task is None:
                self._starved = True
            else:
                self._pool.submit(number, task)

    def _next_task(self, number: int, now: float) -> Task | None:
        """The most urgent task: chores, then files to identify, then the steps from the last to the first."""
        in_flight = [task.batch for task in self._pool.busy().values() if isinstance(task, Work)]
        return (
            self._craft.chore(in_flight, now)
            or self._craft.identify(self._discovery.unidentified)
            or self._next_work(number, in_flight, now)
        )

    def _next_work(self, number: int, in_flight: Sequence[Batch], now: float) -> Work | None:
        for step in reversed(self._ledger.lifecycle.steps):
            claim = self._craft.allowance(step, number, in_flight, now)
            batch = claim and self._ledger.claim(
                step,
                limit=claim.limit,
                max_bytes=claim.max_bytes,
                newest_first=claim.newest_first,
                bulky=claim.bulky,
                skip=claim.skip,
                worker=number,
                now_ms=now_ms(),
            )
            if claim and batch:
                return Work(batch, claim.orders)
        return None

    def _keep_time(self) -> None:
        """Do what is done by the clock: the heartbeats, the live table, the care of the ledger."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + 1.0
            self._beat()
            self._supervisor.beat(self._status)
            self._heed_clock(now)
        if self._tick is not None and now >= self._next_tick:
            self._next_tick = now + 0.25
            self._tick()
        if now >= self._next_tend and not self._pool.busy():
            self._next_tend = now + _TEND
            with suppress(LedgerBusy, LedgerFull):
                self._ledger.tend()

    def _beat(self) -> None:
        """Say that it lives; nobody waits for that when the ledger can't be written."""
        try:
            self._craft.beat()
            self._tell_progress()
        except (LedgerBusy, LedgerFull) as error:
            self._patience.tell(error)
        else:
            self._patience.over()

    def _status(self) -> str:
        """How things are, in one line for the service manager."""
        lifecycle, count = self._ledger.lifecycle, Counter[str]()
        for total in self._ledger.totals():
            count[total.state] += total.files
        waiting = sum(count[state] for state in {step.source for step in lifecycle.steps})
        moving = sum(count[state] for state in {step.working for step in lifecycle.steps})
        stuck = sum(count[state] for state in lifecycle.trouble)
        paused = self._craft.paused()
        told = f"{files(waiting)} waiting, {moving:,} on their way, {stuck:,} in trouble"
        return f"{told}; paused: {paused}" if paused else told

    def _tell_progress(self) -> None:
        for number, task in self._pool.busy().items():
            progress = self._pool.progress(number)
            if isinstance(task, Work) and progress is not None:
                self._ledger.progress(task.batch.id, phase=progress.phase, progress_bytes=progress.bytes)

    def _heed_clock(self, now: float) -> None:
        """When somebody has set the clock, the times of next tries are set with it."""
        jump = self._clock.jump(time.time(), now)
        if jump:
            moved = self._ledger.reschedule(round(jump * 1000))
            log.warning("the clock was set by %+.0f s; %d next tries were set with it", jump, moved)

    def _is_over(self) -> bool:
        """Nothing in flight, nothing that can be claimed, and nothing new at a walk made since."""
        if self._pool.busy() or not self._starved or self._craft.hopeful():
            return False
        return self._discovery.is_exhausted(since=self._last_answer)

    def _wind_down(self, signals: Signals, *, patience: float) -> None:
        """Let work in flight finish, for `patience` seconds, or `grace` once a stop is asked for."""
        deadline, is_stopping = time.monotonic() + patience, False
        while self._pool.busy():
            if signals.wish is Wish.STOP and not is_stopping:
                deadline, is_stopping = time.monotonic() + self._grace, True
            if time.monotonic() >= deadline:
                log.warning("%d tasks in flight are given up, and resumed", len(self._pool.busy()))
                return
            wait([signals.fileno(), *self._pool.waitables()], 0.25)
            signals.drain()
            self._collect()
            self._keep_time()
