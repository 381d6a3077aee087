"""The handoff manager: what it decides, from the start to the stop."""

import logging
import os
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

from common import __version__
from common.discovery import Discovery
from common.engine import Claim, Engine, now_ms
from common.entry import Batch, Done, Entry, Failed, Report
from common.errors import DbbError, Failure, Scope
from common.files import Algorithm, BufferedFile
from common.ledger.ledger import Ledger
from common.ledger.lock import ManagerLock
from common.ledger.rows import ManagerRow
from common.lifecycle import Step
from common.logs import Steady
from common.mounts import Ground
from common.patience import Patience
from common.pool import Crash, Pool
from common.retry import Breaker
from common.room import Room, room_of
from common.runtime import MARK, Runtime, clear, runtime_directory
from common.scan import Scanner
from common.settle import Settling
from common.signals import Signals
from common.tasks import Chore, Identify, Task
from common.watch import Watch
from common.wording import duration, files, size
from common.wording import path as shown
from handoff.config import HandoffConfig
from handoff.courier import CourierRecipe, Look, Sweep
from handoff.delivery import News, batch_name
from handoff.lifecycle import ABSENT, HOLD, LIFECYCLE, SEND
from handoff.outlook import Outlook
from handoff.receipts import Collection
from handoff.route import Orders, Route, TransferName
from handoff.survey import Survey

log = logging.getLogger(__name__)

_LEDGER_WAIT = 0.5
"""Seconds that SQLite itself waits for another writer, deaf to signals."""
_SWEEPS_A_LIFE = 8
"""So often within the time after which empty directories expire they are swept."""
_LEDGER_FLOOR = 20_000_000
"""Below so many free bytes on the ledger's disk nothing new is begun: what is in flight must be written."""
_HOPEFUL_SETBACKS = 3
"""After so many failures in a row `--once` gives up waiting."""
_DEADLY_DEATHS = 3
"""A file over which workers or transfers die more often than this in a row is held to be the reason."""
_DELIVERED = ("held", "vanished")
"""States of files that need nothing more."""


def serve(
    config: HandoffConfig,
    *,
    once: bool = False,
    ready: Callable[[], None] = lambda: None,
    tick: Callable[[], None] | None = None,
) -> int:
    """Be the handoff manager until told to stop; with `once`, until nothing is left that can be done.

    Returns the exit code: 0, or 3 when `once` ended with files that could not be delivered.

    Raises
    ------
    LedgerHeld
        Another manager works with this ledger.
    DbbError
        It can't begin, or the ledger can't be used any more.
    """
    buffer = _directory(config)
    with ExitStack() as stack:
        stack.enter_context(ManagerLock(config.ledger_path))
        signals = stack.enter_context(Signals())
        patience = Patience(signals, tick=tick)
        ledger = stack.enter_context(
            Ledger.open(config.ledger_path, LIFECYCLE, busy_timeout=_LEDGER_WAIT, patience=patience)
        )
        runtime = stack.enter_context(runtime_directory(ledger.id))
        _succeed_a_killed_one(runtime, ledger.id)
        os.environ[MARK] = ledger.id
        pool: Pool[Task, object] = Pool(config.general.num_threads, prepare="handoff.courier")
        stack.callback(pool.close)
        pool.start()
        pool.brief(CourierRecipe(_route(config, ledger), runtime.path))
        resumed = ledger.rescue(now_ms=now_ms())
        watch = stack.enter_context(Watch(buffer))
        engine = Engine(
            Handoff(config, ledger),
            ledger,
            patience,
            _discovery(config, ledger, watch),
            pool,
            config.general.retry.backoff(),
            tick=tick,
        )
        log.info("started: %s in flight before are resumed", files(resumed))
        ready()
        engine.run(signals, once=once)
        left = sum(total.files for total in ledger.totals() if total.state not in _DELIVERED)
        log.info("stopped")
        return 3 if once and left else 0


def _directory(config: HandoffConfig) -> bytes:
    """The buffer; it and the holding area must be there, for a missing one may be a missing mount."""
    for key, path in (("buffer", config.handoff.buffer), ("holding", config.handoff.holding)):
        if not path.is_dir():
            raise DbbError(
                f"handoff.{key}: {path} is not a directory", "mount it, or make it, and start again"
            )
    return os.fsencode(config.handoff.buffer)


def _succeed_a_killed_one(runtime: Runtime, ledger_id: str) -> None:
    """Work begins only when nothing of a manager that was killed is left."""
    if runtime.was_left_behind:
        # Here, because psutil takes longer to import than a start needs to find that all is well.
        from common.orphans import end_orphans

        ended = end_orphans(ledger_id)
        clear(runtime.path)
        log.warning("the manager before this one was killed; %d processes of it were ended", ended)


def _discovery(config: HandoffConfig, ledger: Ledger, watch: Watch) -> Discovery:
    general = config.general
    scanner = Scanner(os.fsencode(config.handoff.buffer), exclude=general.exclude_list)
    return Discovery(
        ledger,
        scanner,
        Settling(scanner, settle=general.settle),
        watch,
        absent=ABSENT,
        pause=general.pause,
        bulky_above=general.batch_bytes,
    )


def _route(config: HandoffConfig, ledger: Ledger) -> Route:
    general, endpoint = config.general, config.endpoint
    return Route(
        site=endpoint.site(),
        owner=ledger.id,
        buffer=os.fsencode(config.handoff.buffer),
        holding=os.fsencode(config.handoff.holding),
        grounds=(
            Ground.under(os.fsencode(config.handoff.buffer)),
            Ground.under(os.fsencode(config.handoff.holding)),
        ),
        staging=os.fsencode(endpoint.staging),
        endpoint_buffer=os.fsencode(endpoint.buffer),
        notes=endpoint.notes,
        transfer_template=endpoint.commands.transfer,
        # Every worker has an equal share, so that all together stay within the limit.
        bandwidth=round(general.bandwidth / general.num_threads) if general.bandwidth else None,
        timeout=general.timeout,
        stall_timeout=general.stall_timeout,
    )


class Handoff:
    """What the handoff manager decides; the craft of its engine."""

    def __init__(self, config: HandoffConfig, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger
        self._started_at = now_ms()
        self._outlook = Outlook(config.general.min_free)
        self._orders: Orders | None = None
        self._receipts = Collection(ledger)
        self._leftovers: set[bytes] = set()
        self._deaths: Counter[int] = Counter()
        """By entry: the workers and transfers that have died over it since it last had an outcome."""
        self._holding = Breaker(first=1.0, most=30.0)
        self._sweep_every = min(3600.0, config.general.expiration_time / _SWEEPS_A_LIFE)
        self._next_sweep = time.monotonic() + min(self._sweep_every, 60.0)
        self._steady = Steady()
        self._disks = {
            "buffer": os.fsencode(config.handoff.buffer),
            "holding": os.fsencode(config.handoff.holding),
            "ledger": os.fsencode(config.ledger_path.parent),
        }
        self._room: dict[str, Room] = {}
        self._copies = False
        """Whether the holding area lies on another filesystem than the buffer."""
        self._measure()

    def chore(self, now: float) -> Chore | None:
        if self._outlook.is_look_due(now):
            is_first = self._outlook.survey is None
            leftovers, self._leftovers = tuple(self._leftovers), set()
            self._outlook.look_began()
            return Chore(Look(is_first, leftovers, self._receipts.recorded))
        if now >= self._next_sweep:
            self._next_sweep = now + self._sweep_every
            return Chore(Sweep(self._config.general.expiration_time))
        return None

    def chore_done(self, chore: Chore, result: object, now: float) -> None:
        if not isinstance(chore.what, Look):
            return
        if isinstance(result, Survey):
            self._orders = self._decide(result)
            self._receipts.note(result.receipts, anew=True)
            self._outlook.looked(result, now)
        else:
            self._leftovers.update(chore.what.leftovers)
            failure = _worker_died(result) if isinstance(result, Crash) else result
            assert isinstance(failure, Failure)
            self._outlook.look_failed(failure, now)

    def allowance(self, step: Step, in_flight: Sequence[Batch], now: float) -> Claim | None:
        running = [batch for batch in in_flight if batch.step == step]
        if self._lacks_room_for_ledger():
            return None
        return self._may_hold(running, now) if step == HOLD else self._may_send(running, now)

    def identify(self, take: Callable[[int, int], tuple[BufferedFile, ...]]) -> Identify | None:
        if self._ledger.algorithm is None:
            return None
        files = take(self._config.general.chunk_size, self._config.general.batch_bytes)
        return Identify(files, self._ledger.algorithm) if files else None

    def worked(self, batch: Batch, result: object, now: float) -> Report:
        if isinstance(result, Crash):
            self._clear_away(batch)
            self._outlook.look_soon()
            return self._take_back(batch, Report((), error=result.reason))
        assert isinstance(result, Report)
        if isinstance(result.news, News):
            self._outlook.room = result.news.room or self._outlook.room
            self._receipts.note(result.news.receipts, anew=False)
        failures = [outcome.failure for outcome in result.outcomes if isinstance(outcome, Failed)]
        shared = next((failure for failure in failures if failure.scope is not Scope.FILE), None)
        if shared is not None:
            self._clear_away(batch)
            self._fail(batch.step, shared, now, max(entry.fence.size for entry in batch.entries))
        elif any(isinstance(outcome, Done) for outcome in result.outcomes):
            self._succeed(batch.step)
        self._tell(batch, result)
        return self._take_back(batch, result)

    def beat(self) -> None:
        self._measure()
        self._tell_room()
        failure = self._outlook.failure
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
                paused=self._paused(),
                disk={name: _row(room) for name, room in self._all_room().items()},
            )
        )

    def patience(self, now: float) -> float:
        holding = self._holding.seconds_to_probe(now)
        waits = [self._outlook.patience(now), self._next_sweep - now]
        return max(0.0, min(waits if holding is None else [*waits, holding]))

    def hopeful(self) -> bool:
        unsettled = self._outlook.is_unsettled and self._outlook.setbacks < _HOPEFUL_SETBACKS
        blocked = self._holding.is_open and self._holding.trips < _HOPEFUL_SETBACKS
        return unsettled or blocked

    def _decide(self, survey: Survey) -> Orders:
        """Choose the digest that is fast at the endpoint, and rsync where both ends have it."""
        fast: Algorithm = "sha256" if survey.openssl or not survey.b2sum else "blake2b"
        algorithm = self._ledger.choose_algorithm(fast)
        return Orders(algorithm, self._transfer(survey), survey.openssl)

    def _transfer(self, survey: Survey) -> TransferName:
        endpoint = self._config.endpoint
        if endpoint.commands.transfer:
            return "commands"
        if endpoint.transfer != "auto":
            return endpoint.transfer
        return "rsync" if survey.rsync and shutil.which("rsync") else "scp"

    def _may_send(self, running: Sequence[Batch], now: float) -> Claim | None:
        if self._orders is None or not self._outlook.may_send(is_sending=bool(running), now=now):
            return None
        general = self._config.general
        portion = self._portion(self._outlook.spare, running, on_trial=self._outlook.is_on_trial)
        if portion is None:
            return None
        bulky = sum(batch.bytes > general.batch_bytes for batch in running)
        return Claim(
            *portion,
            newest_first=general.order == "newest",
            # One worker is kept free of bulky files, so that they never hold up the small ones.
            bulky=None if bulky < max(1, general.num_threads - 1) else False,
            orders=replace(self._orders, recorded=self._receipts.recorded, passing=self._receipts.passing),
        )

    def _may_hold(self, running: Sequence[Batch], now: float) -> Claim | None:
        if self._holding.probe_due(now):
            self._holding.probed()
        if self._holding.is_open or (self._holding.is_half_open and running):
            return None
        lack = self._lack_in_holding()
        if lack:
            self._fail(HOLD, lack, now)
            return None
        spare = self._spare_in_holding()
        portion = self._portion(spare, running, on_trial=self._holding.is_half_open)
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
        self._holding.trip(failure, now)
        if self._steady.due("holding", failure.cause):
            log.warning("delivered files wait in the buffer: %s; %s", failure.reason, failure.hint)

    def _succeed(self, step: Step) -> None:
        if step == SEND:
            self._outlook.succeed()
        elif self._holding.close():
            log.info(
                "the holding area takes files again after %s", duration(self._steady.ended("holding") or 0)
            )

    def _clear_away(self, batch: Batch) -> None:
        """What was sent of a batch that broke off is removed from staging by the next look."""
        if batch.step == SEND:
            self._leftovers.add(batch_name(self._ledger.id, batch))

    def _take_back(self, batch: Batch, report: Report) -> Report:
        """Files without an outcome go back: a worker or a transfer was killed over them.

        That costs them no attempt, unless it happens again and again: then they may be the reason.
        """
        for outcome in report.outcomes:
            self._deaths.pop(outcome.entry_id, None)
        told = {outcome.entry_id for outcome in report.outcomes}
        lost = [entry for entry in batch.entries if entry.id not in told]
        self._deaths.update(entry.id for entry in lost)
        if lost:
            log.warning("%s: taken back: %s", files(len(lost)), report.error)
        blamed = tuple(
            Failed(entry.id, _deadly(entry, report.error))
            for entry in lost
            if self._deaths[entry.id] > _DEADLY_DEATHS
        )
        return replace(report, outcomes=(*report.outcomes, *blamed))

    def _tell(self, batch: Batch, report: Report) -> None:
        """One line a batch, and one for each file that did not go on."""
        done = [o for o in report.outcomes if isinstance(o, Done) and o.state == batch.step.target]
        seconds = sum(seconds for name, seconds in report.phases.items() if "." not in name)
        # What keeps everything waiting is told elsewhere, and not at each try.
        waits = any(isinstance(o, Failed) and o.failure.scope is not Scope.FILE for o in report.outcomes)
        log.log(
            logging.DEBUG if waits and not done else logging.INFO,
            "%s: %s of %s, %s in %s",
            batch.step.target,
            f"{len(done):,}",
            files(len(batch.entries)),
            size(batch.bytes),
            duration(seconds),
        )
        for outcome in report.outcomes:
            if isinstance(outcome, Failed) and outcome.failure.scope is Scope.FILE:
                log.warning("failed: %s; %s", outcome.failure.reason, outcome.failure.hint)
            elif isinstance(outcome, Done) and outcome.state != batch.step.target:
                log.warning("%s: %s", outcome.state, outcome.reason)

    def _measure(self) -> None:
        for name, directory in self._disks.items():
            with suppress(OSError):
                self._room[name] = room_of(directory)
        with suppress(OSError):
            buffer, holding = (os.stat(self._disks[name]).st_dev for name in ("buffer", "holding"))
            self._copies = buffer != holding

    def _tell_room(self) -> None:
        """Say where space is short on this side, and what waits for it."""
        floor = self._config.general.min_free
        for name, waits in (("buffer", "nothing waits for it yet"), ("ledger", "nothing new is begun")):
            room = self._room.get(name)
            lacks = self._lacks_room_for_ledger() if name == "ledger" else room and room.free_bytes < floor
            if not lacks:
                self._steady.ended(f"room for {name}")
            elif room and self._steady.due(f"room for {name}"):
                log.warning("%s are free on the disk of the %s: %s", size(room.free_bytes), name, waits)

    def _spare_in_holding(self) -> int | None:
        """So many bytes may still be copied there; None within one filesystem, where a move takes none."""
        if not self._copies:
            return None
        try:
            # Measured anew, for several batches are held within a second.
            return room_of(self._disks["holding"]).free_bytes - self._config.general.min_free
        except OSError:
            return None

    def _lack_in_holding(self) -> Failure | None:
        spare = self._spare_in_holding()
        if spare is None or spare >= 0:
            return None
        floor = self._config.general.min_free
        reason = (
            f"{size(spare + floor)} are free in the holding area, below general.min_free of {size(floor)}"
        )
        hint = "free space there; it goes on by itself"
        return Failure(Scope.HANDOFF, "holding area full", reason, hint)

    def _all_room(self) -> dict[str, Room]:
        return self._room | {f"endpoint_{name}": room for name, room in self._outlook.room.items()}

    def _lacks_room_for_ledger(self) -> bool:
        room = self._room.get("ledger")
        return room is not None and room.free_bytes < min(_LEDGER_FLOOR, self._config.general.min_free)

    def _paused(self) -> str:
        if self._lacks_room_for_ledger():
            return "the disk of the ledger is full"
        failure = self._outlook.failure or self._holding.failure
        return f"{failure.cause}: {failure.hint}" if failure else ""


def _worker_died(crash: Crash) -> Failure:
    hint = "it is resumed; if it comes again, see the log at level DEBUG"
    return Failure(Scope.HANDOFF, "worker died", crash.reason, hint)


def _deadly(entry: Entry, reason: str) -> Failure:
    hint = "see the log; is there too little memory for it, or does its content upset the transfer?"
    return Failure(Scope.FILE, "killed again and again", f"{shown(entry.path)}: {reason}", hint)


def _row(room: Room) -> dict[str, int]:
    row = {"free_bytes": room.free_bytes, "total_bytes": room.total_bytes}
    return row if room.free_inodes is None else {**row, "free_inodes": room.free_inodes}
