"""Where files are carried to, and how: what a new worker process is told, light enough to be sent to it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from common.files import Algorithm
from common.footing import familiar
from common.mounts import Ground
from common.pool import Tell
from common.remote import Remote, Site

if TYPE_CHECKING:
    # Workers do without: the models of the configuration take long to build, and so does the ledger.
    from common.ledger.ledger import Ledger
    from handoff.config import HandoffConfig
    from handoff.courier import Courier
    from handoff.script import Patience
    from handoff.survey import Survey

TransferName = Literal["stream", "rsync", "scp", "commands"]


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
    """Seconds of wall-clock time for one command."""
    stall_timeout: float | None = None
    """Seconds that a command may move no bytes."""

    @classmethod
    def of(cls, config: "HandoffConfig", owner: str) -> "Route":
        """The route that a configuration describes."""
        general, endpoint = config.general, config.endpoint
        buffer, holding = os.fsencode(config.handoff.buffer), os.fsencode(config.handoff.holding)
        return cls(
            site=endpoint.site(),
            owner=owner,
            buffer=buffer,
            holding=holding,
            grounds=(Ground.under(buffer), Ground.under(holding)),
            staging=os.fsencode(endpoint.staging),
            endpoint_buffer=os.fsencode(endpoint.buffer),
            notes=endpoint.notes,
            transfer_template=endpoint.commands.transfer,
            # Every worker has an equal share, so that all together stay within the limit.
            bandwidth=round(general.bandwidth / general.num_threads) if general.bandwidth else None,
            timeout=general.timeout,
            stall_timeout=general.stall_timeout,
        )

    @classmethod
    def known(cls, config: "HandoffConfig", ledger: "Ledger") -> "Route":
        """The same for a manager, on the grounds that its ledger knows."""
        route = cls.of(config, ledger.id)
        return replace(route, grounds=familiar(route.grounds, ledger))

    @property
    def patience(self) -> "Patience":
        """How long one visit to the endpoint may take."""
        from handoff.script import Patience

        return Patience(self.timeout, self.stall_timeout)


@dataclass(frozen=True, slots=True)
class CourierRecipe:
    """Makes couriers."""

    route: Route
    runtime: Path

    @contextmanager
    def open(self, number: int, tell: Tell) -> Iterator["Courier"]:
        with Remote(self.route.site, self.runtime, f"w{number}") as remote:
            # The login need not wait for the first task.
            remote.begin()
            from handoff.courier import Courier

            yield Courier(self.route, remote, tell)


@dataclass(frozen=True, slots=True)
class Orders:
    """What a survey of the endpoint decided, and every batch follows."""

    algorithm: Algorithm
    transfer: TransferName
    openssl: bool = False
    rsync_version: tuple[int, ...] = ()
    """Of the endpoint's rsync; empty where it is not known."""
    recorded: tuple[bytes, ...] = ()
    """Receipts that have been noted, and are to be removed there."""
    passing: tuple[bytes, ...] = ()
    """Receipts that tell nothing of this ledger's files, and need not be brought again."""


def transfer_of(config: "HandoffConfig", survey: "Survey") -> TransferName:
    """How files are sent: as the configuration says, or by the fastest way that there are programs for."""
    endpoint = config.endpoint
    if endpoint.commands.transfer:
        return "commands"
    if endpoint.transfer != "auto":
        return endpoint.transfer
    if survey.tar:
        return "stream"
    return "rsync" if survey.rsync and shutil.which("rsync") else "scp"


def fast_algorithm(survey: "Survey") -> Algorithm:
    """The digest that the endpoint computes fastest (sha256sum without OpenSSL has half b2sum's speed)."""
    return "sha256" if survey.openssl or not survey.b2sum else "blake2b"
