"""How a running manager is told to stop: politely, at once, or once all that is in flight is done."""

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

    A second SIGINT raises KeyboardInterrupt where the program stands.
    """

    def __init__(self) -> None:
        self.wish = Wish.GO_ON
        self._interrupts = 0
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, signal.Handlers | int | object] = {}

    def __enter__(self) -> Self:
        self._old_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            self._before[number] = signal.signal(number, self._heard)
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

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt
        self.wish = max(self.wish, Wish.DRAIN if number == signal.SIGUSR1 else Wish.STOP)
