"""What a manager does while its ledger can't be written: it waits, says so, and loses nothing."""

import logging
import time
from collections.abc import Callable
from multiprocessing.connection import wait

from common.errors import LedgerError
from common.logs import Steady
from common.signals import Signals, Wish
from common.supervisor import Supervisor
from common.wording import duration

log = logging.getLogger(__name__)

_PAUSE = 0.25
"""Seconds between two tries."""


class Patience:
    """Decides, each time that the ledger could not be written, whether it is tried again.

    Parameters
    ----------
    grace
        Seconds that the ledger still gets once a stop is asked for.
    tick
        Called at each try, to draw a live table.
    """

    def __init__(
        self,
        signals: Signals,
        supervisor: Supervisor,
        *,
        grace: float = 3.0,
        tick: Callable[[], None] | None = None,
    ) -> None:
        self._signals = signals
        self._supervisor = supervisor
        self._grace = grace
        self._tick = tick
        self._steady = Steady()
        self._deadline: float | None = None

    def __call__(self, error: LedgerError) -> bool:
        """Wait a moment; false once there is no more time to try again."""
        self.tell(error)
        self._supervisor.beat(lambda: f"all work waits: {error.message}")
        if self._signals.wish is Wish.STOP:
            now = time.monotonic()
            self._deadline = self._deadline or now + self._grace
            if now >= self._deadline:
                return False
        elif self._tick is not None:
            self._tick()
        wait([self._signals.fileno()], _PAUSE)
        self._signals.drain()
        return True

    def tell(self, error: LedgerError) -> None:
        """Say that the ledger can't be written, once and then once a minute."""
        if self._steady.due("ledger", type(error).__name__):
            log.warning("all work waits: %s. %s", error.message, error.hint)

    def over(self) -> None:
        """The ledger was written."""
        lasted = self._steady.ended("ledger")
        if lasted is not None:
            log.info("the ledger can be written again after %s", duration(lasted))
