"""The command `backfill`, from its words to its exit code."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from common.console import Progress, Screen
from common.errors import DbbError
from common.health import is_there
from common.ledger.ledger import Ledger
from common.wording import size
from endpoint.backfill import Backfill, source_path
from endpoint.config import EndpointConfig
from endpoint.lifecycle import LIFECYCLE
from endpoint.premises import Premises

_BUSY = 30.0
"""Seconds that the manager's own transactions are waited for."""


def backfill(program: str, config: EndpointConfig, named: Sequence[str], *, dry_run: bool) -> int:
    """Enter what lies in storage; 1 when something could not be read, else 0.

    Raises
    ------
    DbbError
        A source lies elsewhere, storage is not there, or the ledger can't be used.
    """
    storage = Premises.of(config).home
    if not os.path.isdir(storage):
        raise DbbError(f"{os.fsdecode(storage)} is not a directory", "mount storage, and run this again")
    sources = tuple(dict.fromkeys(source_path(storage, name) for name in named)) or (b"",)
    screen = Screen(program)
    with _ledger(config, dry_run=dry_run) as ledger:
        work = Backfill(storage, config.finder.exclude_list, ledger, screen.say)
        _run(screen, work, sources, dry_run=dry_run)
    screen.say(work.tally.told(dry_run=dry_run))
    return 1 if work.tally.troubles else 0


def _ledger(config: EndpointConfig, *, dry_run: bool) -> AbstractContextManager[Ledger | None]:
    if dry_run and not is_there(config.ledger_path):
        return nullcontext()
    return Ledger.open(config.ledger_path, LIFECYCLE, busy_timeout=_BUSY)


def _run(screen: Screen, work: Backfill, sources: Sequence[bytes], *, dry_run: bool) -> None:
    """Do it, with a bar on a terminal; how much there is, a walk finds out for that alone."""
    total = 0
    counts = screen.is_terminal and not dry_run

    def look() -> Progress:
        if counts:
            return Progress(f"looking at what there is: {size(total)}")
        told, done = work.tally.told(dry_run=dry_run), work.tally.bytes
        return Progress(f"{told}, of {size(total)}", min(1.0, done / total)) if total else Progress(told)

    with screen.progress(look) as tick:
        if counts:
            for found in work.sizes(sources):
                total += found
                tick()
            counts = False
        for _ in work.run(sources, dry_run=dry_run):
            tick()
