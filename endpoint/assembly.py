"""How the parts of an endpoint manager are put together."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from common.discovery import Discovery
from common.engine import Engine, Means
from common.footing import familiar
from common.ledger.ledger import Ledger
from common.scan import Scanner, Source
from common.settle import Settling
from common.watch import Watch
from endpoint.clerk import ClerkRecipe
from endpoint.config import EndpointConfig
from endpoint.craft import Endpoint
from endpoint.lifecycle import ABSENT
from endpoint.premises import Premises
from endpoint.rsynclogs import RsyncLogs, Window

log = logging.getLogger(__name__)


def recipe(config: EndpointConfig, ledger: Ledger) -> ClerkRecipe:
    """What the workers are."""
    return ClerkRecipe(_premises(config, ledger))


@contextmanager
def assemble(config: EndpointConfig, means: Means) -> Iterator[Engine]:
    """The engine of an endpoint manager, watching its buffer for as long as the context lasts."""
    general, premises = config.general, _premises(config, means.ledger)
    _warn_of_catalogue(premises)
    with nullcontext() if config.finder.reads_logs else Watch(premises.buffer) as watch:
        scanner = _source(config, premises)
        discovery = Discovery(
            means.ledger,
            scanner,
            Settling(scanner, settle=general.settle),
            watch,
            absent=ABSENT,
            pause=general.pause,
            bulky_above=general.batch_bytes,
        )
        craft = Endpoint(config, premises, means)
        yield Engine(craft, means, discovery, general.retry.backoff())


def _premises(config: EndpointConfig, ledger: Ledger) -> Premises:
    premises = Premises.of(config)
    return replace(premises, grounds=familiar(premises.grounds, ledger)).remembering(ledger.catalogue)


def _warn_of_catalogue(premises: Premises) -> None:
    """Say at once that a catalogue is gone, for it may take long until a file needs it."""
    if premises.database is None or os.path.exists(premises.database):
        return
    from endpoint.catalogues.contract import CatalogueError
    from endpoint.catalogues.loading import make

    try:
        make(premises.catalogue, premises.catalogue_config).version()
    except CatalogueError as error:
        log.error("%s; files wait until then: %s", error.message, error.hint)


def _source(config: EndpointConfig, premises: Premises) -> Source:
    finder = config.finder
    if not finder.reads_logs:
        return Scanner(premises.buffer, exclude=finder.exclude_list)
    window = Window(
        finder.day, finder.past_days, finder.future_days, finder.delay, (finder.extension or "").lstrip(".")
    )
    return RsyncLogs(os.fsencode(config.logs), premises.buffer, window, exclude=finder.exclude_list)
