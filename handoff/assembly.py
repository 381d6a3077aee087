"""How the parts of a handoff manager are put together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from common.discovery import Discovery
from common.engine import Engine, Means
from common.scan import Scanner
from common.settle import Settling
from common.watch import Watch
from handoff.config import HandoffConfig
from handoff.craft import Handoff
from handoff.lifecycle import ABSENT
from handoff.route import Route


@contextmanager
def assemble(config: HandoffConfig, means: Means) -> Iterator[Engine]:
    """The engine of a handoff manager, watching its buffer for as long as the context lasts."""
    general = config.general
    buffer = os.fsencode(config.handoff.buffer)
    with Watch(buffer) as watch:
        scanner = Scanner(buffer, exclude=general.exclude_list)
        discovery = Discovery(
            means.ledger,
            scanner,
            Settling(scanner, settle=general.settle),
            watch,
            absent=ABSENT,
            pause=general.pause,
            bulky_above=general.batch_bytes,
        )
        craft = Handoff(config, means, Route.known(config, means.ledger).grounds)
        yield Engine(craft, means, discovery, general.retry.backoff())
