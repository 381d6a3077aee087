"""How a running manager is told to stop, in how much of a hurry, or to read its configuration again."""

import os
import signal
from enum import IntEnum
from types import FrameType, TracebackType
from typing import Self


class Wish(IntEnum):
    """What was asked for, the more urgent the greater."""

    GO_ON = 0
    DRAIN = 1
    """SIGUSR1: take nothing new, finish what is in flight however long it takes."""
    STOP = 2
    """SIGTERM or SIGINT: finish what is in flight within seconds, else give it up."""


class Signals:
    """Listens for them, and wakes the loop that waits on `fileno()`.

    A second SIGINT raises KeyboardInterrupt where the program stands. SIGHUP asks for the configuration
    to be read again; but to a manager whose terminal was closed it means a stop, unless it began with
    SIGHUP ignored (``nohup``).
    """

    def __init__(self) -> None:
        self.wish = Wish.GO_ON
        self._wants_renewal = False
        self._interrupts = 0
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, signal.Handlers | int | object] = {}

    def __enter__(self) -> Self:
        self._old_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._heard)
        self._needs_terminal = _has_terminal() and self._before[signal.SIGHUP] != signal.SIG_IGN
        # Sent when somebody opens a file for writing while its lease is being asked for; it would kill.
        self._before[signal.SIGIO] = signal.signal(signal.SIGIO, signal.SIG_IGN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._reader

    def drain(self) -> None:
        """Empty the pipe that woke the loop."""
        try:
            while os.read(self._reader, 512):
                pass
        except BlockingIOError:
            pass

    def wants_renewal(self) -> bool:
        """Whether the configuration is to be read again; asking takes that as done."""
        wanted, self._wants_renewal = self._wants_renewal, False
        return wanted

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt
        if number == signal.SIGHUP and (not self._needs_terminal or _has_terminal()):
            self._wants_renewal = True
            return
        self.wish = max(self.wish, Wish.DRAIN if number == signal.SIGUSR1 else Wish.STOP)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
