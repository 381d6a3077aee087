"""The disks of one side: how much room there is, what waits for want of it, and that it is said."""

import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress

from common.errors import Failure, Scope
from common.logs import Steady
from common.room import Room, room_of
from common.trend import Trend
from common.wording import size

log = logging.getLogger(__name__)

_LEDGER_FLOOR = 20_000_000
"""Below so many free bytes on the ledger's disk nothing new is begun: what is in flight must be written."""


class Disks:
    """What is known of them, measured once a second.

    Parameters
    ----------
    places
        A directory on each, by the names that `status` uses: ``buffer``, ``ledger``, and where files go.
    goal, called
        Which of them files are moved into from the buffer, and what it is called; None: nowhere.
    floor
        Free bytes below which nothing is written there.
    scope
        Whose fault it is when there is no room.
    """

    def __init__(
        self, places: Mapping[str, bytes], *, goal: str | None, called: str, floor: int, scope: Scope
    ) -> None:
        self._places = places
        self._goal = goal
        self._called = called
        self._floor = floor
        self._scope = scope
        self._room: dict[str, Room] = {}
        self._devices: dict[str, int] = {}
        self._trend = Trend()
        """Of the buffer's free space."""
        self._steady = Steady()
        self.measure()

    def measure(self) -> None:
        """Look at them, and say where space is short."""
        for name, directory in self._places.items():
            with suppress(OSError):
                self._room[name] = room_of(directory)
                self._devices[name] = os.stat(directory).st_dev
        if "buffer" in self._room:
            self._trend.add(time.monotonic(), self._room["buffer"].free_bytes)
        self._tell("buffer", "what writes into it may soon fail", lacks=self._free("buffer") < self._floor)
        self._tell("ledger", "nothing new is begun", lacks=self.lacks_room_for_ledger)

    @property
    def copies(self) -> bool:
        """Whether files go to another filesystem than the buffer's, so that a move is a copy."""
        return self._goal is not None and self._devices.get("buffer") != self._devices.get(self._goal)

    @property
    def lacks_room_for_ledger(self) -> bool:
        """Whether nothing new should be begun; work that makes room on that very disk always may."""
        makes_room = self.copies and self._devices.get("ledger") == self._devices.get("buffer")
        return self._free("ledger") < min(_LEDGER_FLOOR, self._floor) and not makes_room

    @property
    def spare(self) -> int | None:
        """So many bytes may still be copied there; None within one filesystem, where a move takes none."""
        if self._goal is None or not self.copies:
            return None
        # Measured anew, for several batches are moved within a second.
        with suppress(OSError):
            return room_of(self._places[self._goal]).free_bytes - self._floor
        return None

    def lack(self) -> Failure | None:
        """Why nothing may be copied there."""
        spare = self.spare
        if spare is None or spare >= 0:
            return None
        free, floor = size(spare + self._floor), size(self._floor)
        reason = f"{free} are free in the {self._called}, below general.min_free of {floor}"
        return Failure(self._scope, f"{self._called} full", reason, "free space there; it goes on by itself")

    def rows(self) -> dict[str, dict[str, int]]:
        """The room by place, with the trend of the buffer's, as the ledger keeps it."""
        rows = {name: row(room) for name, room in self._room.items()}
        if "buffer" in rows:
            rows["buffer"] |= self._trend.row()
        return rows

    def _free(self, name: str) -> float:
        return self._room[name].free_bytes if name in self._room else float("inf")

    def _tell(self, name: str, what: str, *, lacks: bool) -> None:
        if not lacks:
            self._steady.ended(name)
        elif self._steady.due(name):
            log.warning("%s are free on the disk of the %s: %s", size(self._free(name)), name, what)


def row(room: Room) -> dict[str, int]:
    """The room in one place, as the ledger keeps it."""
    told = {"free_bytes": room.free_bytes, "total_bytes": room.total_bytes}
    return told if room.free_inodes is None else {**told, "free_inodes": room.free_inodes}
