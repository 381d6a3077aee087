"""What goes into the ledger and what is read from it. Times are milliseconds since the epoch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from common.files import Checksum, Fence

FAILED = "failed"
"""The exit that every lifecycle has for work that did not succeed; the ledger enters it by itself."""
VANISHED = "vanished"
"""The exit for a version whose content is gone from the buffer."""


@dataclass(frozen=True, slots=True)
class Found:
    """A settled file in the buffer, as it is given to `record`."""

    path: bytes
    """Relative to the buffer."""
    fence: Fence
    checksum: Checksum | None = None
    bulky: bool = False
    """Whether it is so big that it must not hold up the small ones."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What came of a page of found files."""

    added: int
    """New versions."""
    renewed: int
    """Known versions that came back, or whose fence was renewed."""
    unknown: tuple[Found, ...]
    """To be hashed, and recorded again with their checksums: they may or may not be known versions."""


@dataclass(frozen=True, slots=True)
class Version:
    """One entry of a path, as far as discovery needs it."""

    id: int
    fence: Fence
    checksum: Checksum | None
    state: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the endpoint manager says has become of a version."""

    path: bytes
    checksum: Checksum
    state: str
    """``stored`` or ``ingested``."""
    at: int


@dataclass(frozen=True, slots=True)
class Origin:
    """What a delivery note says of a version."""

    path: bytes
    size: int
    checksum: Checksum
    note: bytes
    """The note's name, without its ending."""
    sent_at: int

    def __reduce__(self) -> tuple[type["Origin"], tuple[object, ...]]:
        # As for `Entry`: a batch has hundreds.
        return Origin, (self.path, self.size, self.checksum, self.note, self.sent_at)


EndpointState = Literal["reachable", "unreachable", "unknown"]


@dataclass(frozen=True, slots=True)
class ManagerRow:
    """What a running manager says of itself, once a second."""

    pid: int
    host: str
    version: str
    started_at: int
    heartbeat_at: int
    endpoint_state: EndpointState = "unknown"
    endpoint_since: int | None = None
    endpoint_reason: str = ""
    paused: str = ""
    """Why it takes no new work; empty while it does."""
    disk: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By place (``buffer``, ``holding``, …): ``free_bytes``, ``total_bytes``, ``free_inodes``."""


@dataclass(frozen=True, slots=True)
class Total:
    """How many files are in a state, for one cause (empty unless the state has one)."""

    state: str
    cause: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Rate:
    """What was done within a window of time."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Files in trouble for the same cause, and one of them as an example."""

    state: str
    cause: str
    example: bytes
    reason: str
    files: int
    bytes: int
    next_try: int | None
    """When the first of them is tried again; None when all of them wait for a person."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The file that has waited longest, of those that are well or of those that failed, and why."""

    state: str
    found_at: int
    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Carried:
    """A batch in flight."""

    batch_id: int
    worker: int
    step: str
    """The working state."""
    since: int
    phase: str
    example: bytes
    files: int
    bytes: int
    progress_bytes: int


@dataclass(frozen=True, slots=True)
class Transition:
    """One line of a version's history."""

    at: int
    source: str
    """Empty where the entry began."""
    target: str
    """Empty where the entry turned out to be a known version, and went on as that."""
    batch_id: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Ride:
    """A batch that a version rode in."""

    batch_id: int
    step: str
    worker: int
    started_at: int
    finished_at: int | None
    """None while it is in flight."""
    files: int
    bytes: int
    phases: Mapping[str, float]
    """Seconds by phase."""
    exit_code: int | None
    error: str


@dataclass(frozen=True, slots=True)
class VersionStory:
    """Everything that is known of one version."""

    id: int
    path: bytes
    fence: Fence
    checksum: Checksum | None
    state: str
    step: str | None
    """For what has failed since its last success: the working state to be tried again."""
    attempts: int
    claims: int
    due_at: int | None
    """When it is tried again; a failed one without waits for `retry`."""
    cause: str
    reason: str
    bulky: bool
    found_at: int
    changed_at: int
    transitions: tuple[Transition, ...]
    rides: tuple[Ride, ...]
    receipts: tuple[Receipt, ...]
    origin: Origin | None = None
    """What its delivery note says, where there is one."""
