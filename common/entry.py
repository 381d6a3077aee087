"""What travels between the ledger and a worker: entries out, outcomes back."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.errors import Failure
from common.files import Checksum, Fence
from common.lifecycle import Step


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of one file, as the ledger knows it."""

    id: int
    path: bytes
    """Relative to the buffer."""
    fence: Fence
    checksum: Checksum | None
    """None until the file has been hashed for the first time."""
    state: str
    attempts: int
    """Failures of this file's own at its present step."""
    claims: int
    """How often it was claimed for its present step; above 1, an earlier try may have arrived unseen."""

    def __reduce__(self) -> tuple[type["Entry"], tuple[object, ...]]:
        # As for `Fence`: a batch holds hundreds.
        checksum, state = self.checksum, self.state
        return Entry, (self.id, self.path, self.fence, checksum, state, self.attempts, self.claims)


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that one worker takes through one step together."""

    id: int
    step: Step
    entries: tuple[Entry, ...]

    @property
    def bytes(self) -> int:
        """The sizes of its files, added up."""
        return sum(entry.fence.size for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Done:
    """The entry goes to `state`: the step's target, or one of the lifecycle's exits."""

    entry_id: int
    state: str
    checksum: Checksum | None = None
    fence: Fence | None = None
    reason: str = ""

    def __reduce__(self) -> tuple[type["Done"], tuple[object, ...]]:
        return Done, (self.entry_id, self.state, self.checksum, self.fence, self.reason)


@dataclass(frozen=True, slots=True)
class Failed:
    """The entry did not make it; `failure` says why and whose fault it is."""

    entry_id: int
    failure: Failure
    checksum: Checksum | None = None
    fence: Fence | None = None


Outcome = Done | Failed


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker answers for a batch. Entries without an outcome go back to where they came from."""

    outcomes: tuple[Outcome, ...]
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds by phase: ``hash``, ``send``, ``place``, …"""
    bytes: int = 0
    """Bytes that went to the endpoint."""
    exit_code: int | None = None
    error: str = ""
    news: object = None
    """What was learned beside, for the manager alone."""
