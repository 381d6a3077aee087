"""Where files are carried to, and how: what a new worker process is told, light enough to be sent to it."""

from dataclasses import dataclass
from typing import Literal

from common.files import Algorithm
from common.mounts import Ground
from common.remote import Site
from handoff.script import Patience

TransferName = Literal["rsync", "scp", "commands"]


@dataclass(frozen=True, slots=True)
class Route:
    """What stays the same for as long as the manager runs. Paths are absolute."""

    site: Site
    owner: str
    """The ledger's id, which marks what is ours at the endpoint."""
    buffer: bytes
    holding: bytes
    staging: bytes
    endpoint_buffer: bytes
    grounds: tuple[Ground, ...] = ()
    """What buffer and holding lie on, which must stay there."""
    notes: bool = True
    transfer_template: str | None = None
    bandwidth: int | None = None
    """Bytes a second for one worker."""
    timeout: float | None = None
    stall_timeout: float | None = None

    @property
    def patience(self) -> Patience:
        """How long one visit to the endpoint may take."""
        return Patience(self.timeout, self.stall_timeout)


@dataclass(frozen=True, slots=True)
class Orders:
    """What a survey of the endpoint decided, and every batch follows."""

    algorithm: Algorithm
    transfer: TransferName
    openssl: bool = False
    recorded: tuple[bytes, ...] = ()
    """Receipts that have been noted, and are to be removed there."""
    passing: tuple[bytes, ...] = ()
    """Receipts that tell nothing of this ledger's files, and need not be brought again."""
