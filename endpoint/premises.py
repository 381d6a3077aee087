"""Where the endpoint manager works and by what rules: what a new worker process is told."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from common.files import Algorithm
from common.mounts import Ground

if TYPE_CHECKING:
    # Workers do without: the models of the configuration take long to build.
    from endpoint.config import EndpointConfig

ALGORITHM: Algorithm = "sha256"
"""What a file is hashed with that no delivery note speaks of: Python's is the fastest with OpenSSL."""


@dataclass(frozen=True, slots=True)
class Premises:
    """What stays the same for as long as the manager runs. Paths are absolute."""

    buffer: bytes
    """Where files are found."""
    storage: bytes | None
    """Where they go; None: they stay where they are found, and the catalogue may take them from there."""
    staging: bytes | None
    """Where delivery notes are read and receipts written."""
    on_duplicate: Literal["delete", "keep"]
    require_note: bool
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    """Regular expressions for what is ingested and what is not."""
    catalogue: str | Mapping[str, str]
    catalogue_config: Mapping[str, object]
    timeout: float
    """Seconds without progress after which the catalogue is killed."""
    grounds: tuple[Ground, ...]
    """What the directories lie on, which must stay there."""

    @classmethod
    def of(cls, config: "EndpointConfig") -> "Premises":
        """The premises that a configuration describes."""
        buffer = os.fsencode(config.endpoint.buffer)
        storage, staging = (
            None if path is None else os.fsencode(path)
            for path in (config.endpoint.storage, config.endpoint.staging)
        )
        if config.finder.reads_logs and storage is not None:
            # What others have placed in storage is found there, and stays.
            buffer, storage = storage, None
        ingester = config.ingester
        return cls(
            buffer=buffer,
            storage=storage,
            staging=staging,
            on_duplicate=config.endpoint.on_duplicate,
            require_note=config.endpoint.require_note,
            include=ingester.include_list,
            exclude=ingester.exclude_list,
            catalogue=config.catalogue,
            catalogue_config=config.catalogue_config,
            timeout=ingester.timeout,
            grounds=tuple(Ground.under(path) for path in (buffer, storage, staging) if path is not None),
        )

    @property
    def database(self) -> str | None:
        """That of the embedded catalogue; None with another catalogue."""
        path = self.catalogue_config.get("path")
        return path if self.catalogue == "sqlite" and isinstance(path, str) else None

    def remembering(self, database: str | None) -> "Premises":
        """The same, but that no new catalogue is made in the place of one that files were ingested into."""
        if database is None or database != self.database:
            return self
        return replace(self, catalogue_config={**self.catalogue_config, "create": False})

    @property
    def home(self) -> bytes:
        """Where files lie when they are ingested."""
        return self.buffer if self.storage is None else self.storage
