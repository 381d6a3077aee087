"""What the cleaner decides: when to look, what of the old may go, and what is told of it.

Workers look and remove; what must stay, the ledger alone knows.
"""

import logging
import math
import os
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from common.files import BufferedFile, Fence
from common.ledger.rows import VANISHED, Version
from common.logs import Steady
from common.sweep import sweep_every
from common.wording import files as counted
from common.wording import path as shown
from common.wording import size
from endpoint.cleaning import Errand, Look, Remove, Removed, Sighted, Sweep, Swept
from endpoint.lifecycle import FINISHED

log = logging.getLogger(__name__)

_KEPT = (b".notes/", b".receipts/")
_UNHURRIED = 0.25
"""Seconds that an errand may wait for."""
_TOLD = 3
"""Troubles of one errand that are told."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is removed, and when. Times are in seconds."""

    directories: tuple[bytes, ...]
    """Below these, old files and empty directories; absolute."""
    files_older_than: float
    directories_empty_for: float
    every: float
    """From the end of one round to the beginning of the next."""
    buffer: bytes
    """Where files lie that nobody has found yet."""
    storage: bytes | None
    """Where those lie that came from there; then empty directories leave the buffer."""
    staging: bytes | None = None
    """Where delivery notes and receipts lie, which nobody else removes."""


class Versions(Protocol):
    """The ledger, as far as the cleaner asks it."""

    def versions(self, paths: Sequence[bytes]) -> dict[bytes, tuple[Version, ...]]: ...


class Cleaner:
    """Gives one errand at a time, and learns from each. Times are seconds by a monotonic clock."""

    def __init__(self, rules: Rules, ledger: Versions, now: float) -> None:
        self._rules = rules
        self._ledger = ledger
        self._roots = tuple(dict.fromkeys(map(os.path.realpath, rules.directories)))
        self._buffer = os.path.realpath(rules.buffer)
        self._storage = None if rules.storage is None else os.path.realpath(rules.storage)
        staging = () if rules.staging is None else (os.path.realpath(rules.staging),)
        self._kept = tuple(os.path.join(place, name) for place in staging for name in _KEPT)
        self._errands: deque[Errand] = deque()
        self._is_out = False
        self._next_round = now if self._roots else math.inf
        self._sweep_every = sweep_every(rules.directories_empty_for)
        self._next_sweep = math.inf if self._storage is None else now + min(self._sweep_every, 60.0)
        self._steady = Steady()
        self._tally = _Tally()

    def errand(self, now: float) -> Errand | None:
        """What is to be done now, if anything; its answer goes to `learn`."""
        if self._is_out:
            return None
        self._begin(now)
        if not self._errands:
            return None
        self._is_out = True
        return self._errands.popleft()

    def learn(self, errand: object, answer: object, now: float) -> None:
        """Take in the answer, which is something else if the worker died: then the round is over."""
        self._is_out = False
        match errand, answer:
            case Look(root, older_than), Sighted(found, rest, troubles):
                if rest is not None:
                    self._errands.appendleft(replace(errand, rest=rest))
                may_go = self._may_go(root, found)
                if may_go:
                    self._errands.appendleft(Remove(root, older_than, may_go))
                self._complain(troubles)
            case Remove(root), Removed(gone, troubles):
                self._tally.add_files(root, gone)
                self._complain(troubles)
            case Sweep(root), Swept(directories):
                self._tally.add_directories(root, directories)
            case _:
                self._errands.clear()
        if not self._errands:
            self._end(now)

    def patience(self, now: float) -> float:
        """Seconds until it wants to be asked; not at once, for it may be that no worker has time for it."""
        if self._is_out:
            return math.inf
        due = now if self._errands else min(self._next_round, self._next_sweep)
        return max(_UNHURRIED, due - now)

    def _begin(self, now: float) -> None:
        rules = self._rules
        if not self._errands and now >= self._next_round:
            self._next_round = math.inf
            for root in self._roots:
                self._errands += (
                    Look(root, rules.files_older_than),
                    Sweep(root, rules.directories_empty_for),
                )
        if now >= self._next_sweep:
            self._next_sweep = now + self._sweep_every
            self._errands.append(Sweep(self._buffer, rules.directories_empty_for))

    def _end(self, now: float) -> None:
        """The round is over: say what it did, and when the next one is."""
        if self._roots and self._next_round == math.inf:
            self._next_round = now + self._rules.every
        if self._tally:
            log.info("removed %s", self._tally)
        self._tally = _Tally()

    def _may_go(self, root: bytes, found: Sequence[BufferedFile]) -> tuple[BufferedFile, ...]:
        """Those that no one will miss: all but what lies in the buffer or in storage and is not done with."""
        stays = {file.path for file in found if os.path.join(root, file.path).startswith(self._kept)}
        for home in (self._buffer, self._storage):
            if home is not None:
                stays |= self._not_done_with(home, root, found)
        return tuple(file for file in found if file.path not in stays)

    def _not_done_with(self, home: bytes, root: bytes, found: Sequence[BufferedFile]) -> set[bytes]:
        prefix = home + b"/"
        inside = {
            absolute.removeprefix(prefix): file
            for file in found
            if (absolute := os.path.join(root, file.path)).startswith(prefix)
        }
        known = self._ledger.versions(tuple(inside)) if inside else {}
        return {
            file.path
            for path, file in inside.items()
            if not _is_done_with(file.fence, known.get(path, ()), in_buffer=home == self._buffer)
        }

    def _complain(self, troubles: Sequence[str]) -> None:
        for trouble in troubles[:_TOLD]:
            if self._steady.due(trouble):
                more = len(troubles) - _TOLD
                log.warning("cleaning: %s%s", trouble, f" (and {more:,} more)" if more > 0 else "")


class _Tally:
    """What a round has removed."""

    def __init__(self) -> None:
        self._files = self._bytes = self._directories = 0
        self._example = ""

    def __bool__(self) -> bool:
        return bool(self._files or self._directories)

    def __str__(self) -> str:
        parts = []
        if self._files:
            parts.append(f"{counted(self._files)} ({size(self._bytes)}) that were old")
        if self._directories:
            noun = "directory" if self._directories == 1 else "directories"
            parts.append(f"{self._directories:,} empty {noun}")
        return f"{' and '.join(parts)}, such as {self._example}"

    def add_files(self, root: bytes, files: Iterable[BufferedFile]) -> None:
        for file in files:
            self._files += 1
            self._bytes += file.fence.size
            self._tell(root, file.path)

    def add_directories(self, root: bytes, directories: Iterable[bytes]) -> None:
        for directory in directories:
            self._directories += 1
            self._tell(root, directory)

    def _tell(self, root: bytes, path: bytes) -> None:
        name = shown(os.path.join(root, path))
        self._example = self._example or name
        log.debug("removed %s", name)


def _is_done_with(fence: Fence, versions: Sequence[Version], *, in_buffer: bool) -> bool:
    """Whether a file in the buffer or in storage is a version that needs nothing more.

    One that nobody has found yet may be arriving. A move into storage changes the inode or its times, so
    that a version is known by its size and modification time there.
    """
    if any(version.state not in FINISHED for version in versions):
        return False
    return any(
        version.state != VANISHED
        and (
            version.fence == fence
            if in_buffer
            else (version.fence.size, version.fence.mtime_ns) == (fence.size, fence.mtime_ns)
        )
        for version in versions
    )
