"""A manager from its start to its stop: what it holds meanwhile, and in which order that comes and goes."""

import gc
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.clock import now_ms
from common.ledger.ledger import Ledger
from common.ledger.lock import ManagerLock
from common.lifecycle import Lifecycle
from common.patience import Patience
from common.pool import Pool, Recipe, Reserve
from common.runtime import Runtime, clear, remove_forgotten, runtime_directory
from common.signals import Signals, Wish
from common.supervisor import Supervisor

if TYPE_CHECKING:
    from common.engine import Engine, Means
    from common.tasks import Task

log = logging.getLogger(__name__)

UNDELIVERED = 3
"""The exit code of `--once` when something is left."""
_LEDGER_WAIT = 0.5
"""Seconds that SQLite itself waits for another writer, deaf to signals."""

Tick = Callable[[], None]
Renew = Callable[[], "Renewed | None"]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that makes one manager another than the other."""

    ledger: Path
    lifecycle: Lifecycle
    finished: Collection[str]
    """States of files that need nothing more."""
    workers: int
    recipe: "Callable[[Ledger, Path], Recipe[Task, object]]"
    """From the ledger and the runtime directory, what a worker is."""
    assemble: "Callable[[Means], AbstractContextManager[Engine]]"
    """The engine, which works for as long as the context lasts."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """What comes of a configuration that was read again and can be used."""

    plan: Plan | None
    """What the manager is to be from now on; None: what it is."""


@dataclass(frozen=True, slots=True)
class Audience:
    """Who wants to know how a manager is."""

    supervisor: Supervisor
    ready: Callable[[], None] = lambda: None
    """Called once it is up."""
    tick: Tick | None = None
    """Called about four times a second while it works."""


@dataclass(frozen=True, slots=True)
class _Lasting:
    """What stays when another configuration is taken up."""

    ledger: Ledger
    patience: Patience
    runtime: Path
    audience: Audience
    reserve: Reserve
    started_at: int

    @contextmanager
    def engine(self, plan: Plan) -> "Iterator[Engine]":
        """The engine of a plan, with its workers; what they have in the runtime directory goes with them."""
        with ExitStack() as stack:
            stack.callback(clear, self.runtime)
            pool: Pool[Task, object] = Pool(plan.workers, self.reserve)
            stack.callback(pool.close)
            # They log in while the rest of the manager is imported.
            pool.start()
            pool.brief(plan.recipe(self.ledger, self.runtime))
            from common.engine import Means

            supervisor, tick = self.audience.supervisor, self.audience.tick
            means = Means(self.ledger, self.patience, pool, supervisor, self.started_at, tick)
            yield stack.enter_context(plan.assemble(means))


def serve(plan: Plan, audience: Audience, reserve: Reserve, *, once: bool, renew: Renew) -> int:
    """Be a manager until told to stop; with `once`, until nothing is left that can be done.

    Returns the exit code: 0, or `UNDELIVERED` when `once` ended with files that could not go their way.
    `renew` is called when the configuration is to be read again, for the same ledger; None: it can't be
    used.

    Raises
    ------
    LedgerHeld
        Another manager works with this ledger.
    DbbError
        It can't begin, or the ledger can't be used any more.
    """
    started_at = now_ms()
    with ExitStack() as stack:
        # At its end the interpreter looks for garbage in all that was ever imported, which takes long.
        stack.callback(gc.freeze)
        stack.enter_context(ManagerLock(plan.ledger))
        signals = stack.enter_context(Signals())
        patience = Patience(signals, audience.supervisor, tick=audience.tick)
        ledger = stack.enter_context(
            Ledger.open(plan.ledger, plan.lifecycle, busy_timeout=_LEDGER_WAIT, patience=patience)
        )
        runtime = stack.enter_context(runtime_directory(ledger.id))
        _succeed_a_killed_one(runtime, reserve.mark)
        remove_forgotten(_marks_of_the_living)
        lasting = _Lasting(ledger, patience, runtime.path, audience, reserve, started_at)
        _work(plan, lasting, signals, once=once, renew=renew)
        left = sum(total.files for total in ledger.totals() if total.state not in plan.finished)
        log.info("stopped")
        return UNDELIVERED if once and left else 0


def _work(plan: Plan, lasting: _Lasting, signals: Signals, *, once: bool, renew: Renew) -> None:
    """Have an engine run, and another one whenever it gives way to another configuration."""
    coming: Plan | None = plan

    def gives_way() -> bool:
        nonlocal coming
        renewed = renew()
        if renewed is not None:
            lasting.ledger.note_renewal(now_ms=now_ms())
            coming = renewed.plan
        return coming is not None

    while coming is not None and signals.wish is Wish.GO_ON:
        present, coming = coming, None
        with lasting.engine(present) as engine:
            lasting.audience.ready()
            engine.run(signals, once=once, renew=gives_way)


def _succeed_a_killed_one(runtime: Runtime, mark: str) -> None:
    """Work begins, and `mark` is put down, only when nothing of a manager that was killed is left."""
    if runtime.left_by is not None:
        # Here, because psutil takes longer to import than a start needs to find that all is well.
        from common.orphans import end_orphans

        ended = end_orphans(runtime.left_by)
        clear(runtime.path)
        log.warning("the manager before this one was killed; %d processes of it were ended", ended)
    runtime.sign(mark)


def _marks_of_the_living() -> frozenset[str]:
    from common.orphans import marks

    return marks()
