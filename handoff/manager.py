"""The handoff manager, from its start to its stop."""

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from common.errors import DbbError
from common.ledger.ledger import Ledger
from common.ledger.lock import ManagerLock
from common.patience import Patience
from common.pool import Pool
from common.runtime import MARK, Runtime, clear, runtime_directory
from common.signals import Signals
from handoff.lifecycle import LIFECYCLE

if TYPE_CHECKING:
    from common.tasks import Task
    from handoff.config import HandoffConfig

log = logging.getLogger(__name__)

_LEDGER_WAIT = 0.5
"""Seconds that SQLite itself waits for another writer, deaf to signals."""
_DELIVERED = ("held", "vanished")
"""States of files that need nothing more."""


def serve(
    config: "HandoffConfig",
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
    _require_directories(config)
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
        # Here, for it takes as long as the start of the workers, which runs beside it.
        from handoff.assembly import assemble, recipe

        pool.brief(recipe(config, ledger.id, runtime.path))
        engine = stack.enter_context(assemble(config, ledger, pool, patience, tick))
        ready()
        engine.run(signals, once=once)
        left = sum(total.files for total in ledger.totals() if total.state not in _DELIVERED)
        log.info("stopped")
        return 3 if once and left else 0


def _require_directories(config: "HandoffConfig") -> None:
    """A directory that is missing may be a missing mount: nothing is made in its place."""
    for key, path in (("buffer", config.handoff.buffer), ("holding", config.handoff.holding)):
        if not path.is_dir():
            raise DbbError(
                f"handoff.{key}: {path} is not a directory", "mount it, or make it, and start again"
            )


def _succeed_a_killed_one(runtime: Runtime, ledger_id: str) -> None:
    """Work begins only when nothing of a manager that was killed is left."""
    if runtime.was_left_behind:
        # Here, because psutil takes longer to import than a start needs to find that all is well.
        from common.orphans import end_orphans

        ended = end_orphans(ledger_id)
        clear(runtime.path)
        log.warning("the manager before this one was killed; %d processes of it were ended", ended)
