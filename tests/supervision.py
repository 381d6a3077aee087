"""What stands in for systemd in a test: the end of its notification socket where it listens."""

import os
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self


class Listener:
    """Hears what a service says of itself; a context manager.

    Parameters
    ----------
    address
        As in ``$NOTIFY_SOCKET``: a path, or ``@`` and a name.
    """

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self.messages: list[dict[str, str]] = []
        """All that was heard so far, each message by its variables."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(f"\0{self.address[1:]}" if self.address.startswith("@") else self.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        if not self.address.startswith("@"):
            os.unlink(self.address)

    @property
    def environment(self) -> dict[str, str]:
        """What a service of `Type=notify` with `WatchdogSec` is started with."""
        return {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": "2000000"}

    def heard(self, variable: str) -> list[str]:
        """The values of a variable so far, in the order in which they came."""
        with suppress(BlockingIOError):
            while message := self._socket.recv(65536):
                pairs = (line.partition("=")[::2] for line in message.decode().splitlines())
                self.messages.append(dict(pairs))
        return [message[variable] for message in self.messages if variable in message]
