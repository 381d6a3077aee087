"""A manager from its start to its stop: what it holds meanwhile, and in which order that comes and goes."""

import gc
import logging
import os
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.ledger.ledger import Ledger
from common.ledger.lock import ManagerLock
from common.lifecycle import Lifecycle
from common.patience import Patience
from common.pool import Pool, Recipe
from common.runtime import MARK, Runtime, clear, remove_forgotten, runtime_directory
from common.signals import Signals

if TYPE_CHECKING:
    from common.engine import Engine
    from common.tasks import Task

log = logging.getLogger(__name__)

_LEDGER_WAIT = 0.5
"""Seconds that SQLite itself waits for another writer, deaf to signals."""

Tick = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that makes one manager another than the other."""

    ledger: Path
    lifecycle: Lifecycle
    finished: Collection[str]
    """States of files that need nothing more."""
    workers: int
    prepare: str
    """The module that workers import as they start."""
    recipe: "Callable[[Ledger, Path], Recipe[Task, object]]"
    """From the ledger and the runtime directory, what a worker is."""
    assemble: "Callable[[Ledger, Pool[Task, object], Patience, Tick | None], AbstractContextManager[Engine]]"
    """The engine, which works for as long as the context lasts."""


def serve(plan: Plan, *, once: bool, ready: Callable[[], None], tick: Tick | None) -> int:
    """Be a manager until told to stop; with `once`, until nothing is left that can be done.

    Returns the exit code: 0, or 3 when `once` ended with files that could not go their way.

    Raises
    ------
    LedgerHeld
        Another manager works with this ledger.
    DbbError
        It can't begin, or the ledger can't be used any more.
    """
    with ExitStack() as stack:
        # At its end the interpreter looks for garbage in all that was ever imported, which takes long.
        stack.callback(gc.freeze)
        stack.enter_context(ManagerLock(plan.ledger))
        signals = stack.enter_context(Signals())
        patience = Patience(signals, tick=tick)
        ledger = stack.enter_context(
            Ledger.open(plan.ledger, plan.lifecycle, busy_timeout=_LEDGER_WAIT, patience=patience)
        )
        runtime = stack.enter_context(runtime_directory(ledger.id))
        _succeed_a_killed_one(runtime, ledger.id)
        remove_forgotten(_ledgers_at_work)
        os.environ[MARK] = ledger.id
        pool: Pool[Task, object] = Pool(plan.workers, prepare=plan.prepare)
        stack.callback(pool.close)
        # They get ready while the rest of the manager is imported.
        pool.start()
        pool.brief(plan.recipe(ledger, runtime.path))
        engine = stack.enter_context(plan.assemble(ledger, pool, patience, tick))
        ready()
        engine.run(signals, once=once)
        left = sum(total.files for total in ledger.totals() if total.state not in plan.finished)
        log.info("stopped")
        return 3 if once and left else 0


def _succeed_a_killed_one(runtime: Runtime, ledger_id: str) -> None:
    """Work begins only when nothing of a manager that was killed is left."""
    if runtime.was_left_behind:
        # Here, because psutil takes longer to import than a start needs to find that all is well.
        from common.orphans import end_orphans

        ended = end_orphans(ledger_id)
        clear(runtime.path)
        log.warning("the manager before this one was killed; %d processes of it were ended", ended)


def _ledgers_at_work() -> frozenset[str]:
    from common.orphans import marks

    return marks()
