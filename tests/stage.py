"""Where the demo plays, and what has happened there so far."""

import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.errors import LedgerError
from common.ledger.lock import holder
from common.ledger.reader import LedgerReader
from tests.archive import Archive
from tests.loopback import Sites
from tests.runs import Managed


@dataclass(frozen=True, slots=True)
class Status:
    """The manager that runs, if one does, and the number of files in each state."""

    pid: int | None
    files: Counter[str]

    @property
    def delivered(self) -> int:
        return sum(self.files[state] for state in ("delivered", "holding", "held"))


@dataclass(frozen=True, slots=True)
class Stage:
    """The two sites, and which catalogue there is at the end."""

    sites: Sites
    archive: Archive
    catalogue: Literal["sqlite", "butler"]

    @property
    def repository(self) -> Path:
        """The Butler repository."""
        return self.archive.directory / "repo"

    @property
    def managers(self) -> tuple[tuple[str, Path], ...]:
        """Each by its package and its configuration."""
        return (("handoff", self.sites.config), ("endpoint", self.archive.config))


@dataclass(slots=True)
class Night:
    """What happened: what the instrument wrote, and what became of the handoff manager."""

    digests: dict[bytes, str] = field(default_factory=dict)
    """Of each image as it was made, by its path below the buffer."""
    size: int = 0
    killed: int | None = None
    """The process that was killed."""
    resumed_by: int | None = None


def status(managed: Managed) -> Status:
    """What the command `status` would say, read from where it reads it."""
    files: Counter[str] = Counter()
    with suppress(LedgerError), LedgerReader.open(managed.ledger, manager=managed.kind) as reader:
        for total in reader.totals():
            files[total.state] += total.files
    return Status(holder(managed.ledger), files)


def say(text: str) -> None:
    """For whoever watches."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
