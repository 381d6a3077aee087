"""Telling systemd, or whatever has started us as a service, how we are: the protocol of sd_notify(3)."""

import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Self, TextIO

_EVERY = 5.0
"""Seconds between two lines of status at least."""
_PATIENCE = 1.0
"""Seconds that a message waits for a reader that does not keep up."""


_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""The least level of logging for each priority of syslog that one of its levels has; the rest is 7."""


def priority(stream: TextIO, level: int) -> str:
    """What a line begins with by which journald knows how important it is, where it is at the other end.

    See sd-daemon(3); empty for any other stream, also where only the standard error of the service's
    first process went to the journal.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return ""
    if os.environ.get("JOURNAL_STREAM") != f"{status.st_dev}:{status.st_ino}":
        return ""
    return f"<{next((number for least, number in _PRIORITIES if level >= least), 7)}>"


class Supervisor:
    """Who watches over a manager. Without an `address` nobody does, and nothing is sent.

    Parameters
    ----------
    address
        A datagram socket: an absolute path, or ``@`` and the rest of a name in the abstract namespace.
    wants_beats
        Whether it does something about us when we say nothing for long.
    """

    def __init__(
        self,
        address: str = "",
        *,
        wants_beats: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._wants_beats = wants_beats
        self._clock = clock
        self._next_status = 0.0

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> Self:
        """The one that the environment names, but not to our children: they must not speak for us."""
        address = environment.pop("NOTIFY_SOCKET", "")
        interval = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        return cls(address, wants_beats=bool(interval) and watched == str(os.getpid()))

    def ready(self) -> None:
        """It is at work: everything that was in flight before has been taken up."""
        self._next_status = 0.0
        self._send("READY=1")

    def beat(self, status: Callable[[], str]) -> None:
        """The loop goes round; `status` is asked for a line now and then."""
        said = ["WATCHDOG=1"] if self._wants_beats else []
        now = self._clock()
        if self._address and now >= self._next_status:
            self._next_status = now + _EVERY
            said.append(f"STATUS={' '.join(status().split())}")
        self._send(*said)

    def reloading(self) -> None:
        """It takes up another configuration, and is ready again afterwards."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It takes on nothing more, and ends once what is in flight is done or given up."""
        self._send("STOPPING=1", "STATUS=finishing what is in flight")

    def _send(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        # A service manager that is gone, or is being restarted, is no reason to do less.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.settimeout(_PATIENCE)
            speaker.sendto("\n".join(lines).encode(errors="backslashreplace"), address)
