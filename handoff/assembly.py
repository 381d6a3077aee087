"""How the parts of a handoff manager are put together."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from common.discovery import Discovery
from common.engine import Engine
from common.footing import familiar
from common.ledger.ledger import Ledger
from common.patience import Patience
from common.pool import Pool
from common.scan import Scanner
from common.settle import Settling
from common.tasks import Task
from common.watch import Watch
from handoff.config import HandoffConfig
from handoff.craft import Handoff
from handoff.lifecycle import ABSENT
from handoff.route import CourierRecipe, Route


def recipe(config: HandoffConfig, ledger: Ledger, runtime: Path) -> CourierRecipe:
    """What the workers are."""
    route = Route.of(config, ledger.id)
    return CourierRecipe(replace(route, grounds=familiar(route.grounds, ledger)), runtime)


@contextmanager
def assemble(
    config: HandoffConfig,
    ledger: Ledger,
    pool: Pool[Task, object],
    patience: Patience,
    tick: Callable[[], None] | None,
) -> Iterator[Engine]:
    """The engine of a handoff manager, watching its buffer for as long as the context lasts."""
    general = config.general
    buffer = os.fsencode(config.handoff.buffer)
    with Watch(buffer) as watch:
        scanner = Scanner(buffer, exclude=general.exclude_list)
        discovery = Discovery(
            ledger,
            scanner,
            Settling(scanner, settle=general.settle),
            watch,
            absent=ABSENT,
            pause=general.pause,
            bulky_above=general.batch_bytes,
        )
        craft = Handoff(config, ledger)
        yield Engine(craft, ledger, patience, discovery, pool, general.retry.backoff(), tick=tick)
