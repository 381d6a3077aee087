"""What a worker of the handoff manager does: hash, send, have it verified and put in place; and hold."""

import time
from dataclasses import dataclass

from common.entry import Batch, Failed, Report
from common.errors import Failure, RemoteError, Scope
from common.footing import doubted, missing_disk
from common.pool import Tell
from common.process import run
from common.remote import Remote
from common.sweep import sweep_empty_directories
from common.tasks import Chore, Identify, Task, Work, identify
from common.transport import Command, Limits, Rsync, Scp, Transport
from handoff.delivery import Delivery
from handoff.holding import Holding
from handoff.lifecycle import HOLD
from handoff.route import Orders, Route
from handoff.stream import Stream
from handoff.survey import Survey, survey, version_in

_RSYNC_UNCHECKED = (3, 2)
"""The first rsync that knows ``--checksum-choice=none`` (its NEWS)."""


@dataclass(frozen=True, slots=True)
class Look:
    """Chore: look around at the endpoint, and clear away what batches of ours left in staging."""

    is_first: bool
    """No batch is in flight: whatever batch of this ledger's is there is left over."""
    keep: tuple[bytes, ...] = ()
    """Directories of the batches in flight; of others only the old ones are cleared away."""
    leftovers: tuple[bytes, ...] = ()
    """Directories of batches whose worker died."""
    recorded: tuple[bytes, ...] = ()
    """Receipts that have been noted."""
    make: bool = False
    """Make the directories there: right only where they have never been seen."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Chore: remove empty directories from the buffer."""

    older_than: float
    """In seconds."""


class Courier:
    """Carries batches, one after the other, over a connection of its own."""

    def __init__(self, route: Route, remote: Remote, tell: Tell) -> None:
        self._route = route
        self._remote = remote
        self._tell = tell
        self._own_rsync: tuple[int, ...] | None = None

    def work(self, task: Task) -> object:
        match task:
            case Work(batch) if batch.step == HOLD:
                return self._hold(batch)
            case Work(batch, Orders() as orders):
                return self._deliver(batch, orders)
            case Identify():
                return identify(self._route.buffer, task)
            case Chore(Look() as look):
                return self._look(look)
            case Chore(Sweep(older_than)):
                return sweep_empty_directories(self._route.buffer, older_than=older_than, now=time.time())
        raise TypeError(f"no courier knows what to do with {task!r}")

    def _deliver(self, batch: Batch, orders: Orders) -> Report:
        transport = self._transport(orders)
        report = Delivery(self._route, self._remote, transport, batch, orders, self._tell).run()
        missing = self._missing_disk()
        return doubted(report, missing) if missing else report

    def _transport(self, orders: Orders) -> Transport:
        limits = Limits(self._route.bandwidth, self._route.timeout, self._route.stall_timeout)
        if orders.transfer == "stream":
            return Stream(self._remote, limits, orders.algorithm)
        if orders.transfer == "commands":
            assert self._route.transfer_template is not None
            return Command(self._route.transfer_template, self._remote, limits)
        if orders.transfer == "scp":
            return Scp(self._remote, limits)
        # The digest at rest is proof enough, where both ends know how to do without rsync's own.
        unchecked = min(self._rsync_version(), orders.rsync_version) >= _RSYNC_UNCHECKED
        return Rsync(self._remote, limits, unchecked=unchecked)

    def _rsync_version(self) -> tuple[int, ...]:
        """Of the rsync on this side, asked once."""
        if self._own_rsync is None:
            told = run(["rsync", "--version"], timeout=10).stdout.decode(errors="replace")
            self._own_rsync = version_in(told)
        return self._own_rsync

    def _hold(self, batch: Batch) -> Report:
        began = time.monotonic()
        self._tell("hold", 0)
        # Without its disk, the directory that the holding area is mounted at would take the files.
        missing = self._missing_disk()
        if missing:
            return Report(tuple(Failed(entry.id, missing) for entry in batch.entries))
        outcomes = Holding(self._route.buffer, self._route.holding).take(batch.entries)
        report = Report(outcomes, {"hold": time.monotonic() - began})
        missing = self._missing_disk()
        return doubted(report, missing) if missing else report

    def _missing_disk(self) -> Failure | None:
        return missing_disk(self._route.grounds, Scope.HANDOFF)

    def _look(self, look: Look) -> Survey | Failure:
        try:
            return survey(
                self._remote,
                staging=self._route.staging,
                buffer=self._route.endpoint_buffer,
                owner=self._route.owner,
                keep=look.keep,
                aged=not look.is_first,
                leftovers=look.leftovers,
                recorded=look.recorded,
                make=look.make,
                patience=self._route.patience,
            )
        except RemoteError as error:
            return error.failure
