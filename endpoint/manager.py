"""The endpoint manager: what makes it another than the handoff's."""

import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import DbbError
from common.serving import Plan
from endpoint.lifecycle import FINISHED, LIFECYCLE

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from common.engine import Engine, Means
    from common.ledger.ledger import Ledger
    from endpoint.clerk import ClerkRecipe
    from endpoint.config import EndpointConfig


def plan(config: "EndpointConfig") -> Plan:
    """What `common.serving.serve` needs to be the endpoint manager.

    Raises
    ------
    DbbError
        A directory is not there.
    """
    _require_directories(config)
    _warn_of_catalogue(config)

    # What they import takes as long as the start of the workers, which runs beside it.
    def recipe(ledger: "Ledger", _runtime: Path) -> "ClerkRecipe":
        from endpoint.assembly import recipe

        return recipe(config, ledger)

    def assemble(means: "Means") -> "AbstractContextManager[Engine]":
        from endpoint.assembly import assemble

        return assemble(config, means)

    return Plan(
        ledger=config.ledger_path,
        lifecycle=LIFECYCLE,
        finished=FINISHED,
        workers=max(config.general.num_threads, config.ingester.num_workers),
        recipe=recipe,
        assemble=assemble,
    )


def _warn_of_catalogue(config: "EndpointConfig") -> None:
    """Say at once that a program is missing, for it may take long until a file needs it."""
    if config.ingester.catalogue != "command":
        return
    from endpoint.catalogues.contract import CatalogueError
    from endpoint.catalogues.loading import make

    try:
        make(config.catalogue, config.catalogue_config).version()
    except CatalogueError as error:
        log.error("%s; files wait until then: %s", error.message, hint_for(config, error.hint))


def hint_for(config: "EndpointConfig", hint: str) -> str:
    """What to do about a catalogue that can't be used, for a configuration of the OODS too."""
    if config.endpoint.storage is not None:
        return hint
    return f"{hint}: in `ingester`, they go in the place of `butler:`"


def _require_directories(config: "EndpointConfig") -> None:
    """A directory that is missing may be a missing mount: nothing is made in its place."""
    for key in ("buffer", "storage", "staging"):
        path: Path | None = getattr(config.endpoint, key)
        if path is not None and not path.is_dir():
            raise DbbError(
                f"endpoint.{key}: {path} is not a directory", "mount it, or make it, and start again"
            )
