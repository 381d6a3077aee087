"""What can be known of the endpoint manager's surroundings before files depend on them."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from common.errors import LedgerError
from common.health import Check, Result, Subject, common_checks, directory, fail, goal, is_there, ok, warn
from common.ledger.reader import LedgerReader
from endpoint.config import EndpointConfig
from endpoint.lifecycle import LIFECYCLE
from endpoint.manager import hint_for
from endpoint.premises import Premises

_CATALOGUE = 120.0
"""Seconds that a catalogue may take to say which it is: some import half a gigabyte."""


def checks(path: Path, config: EndpointConfig, *, canary: bool) -> Sequence[Check]:
    """Everything to look at; with `canary` a file is sent through the whole path, too."""
    section = config.endpoint
    buffer = os.fsencode(section.buffer)
    storage = None if section.storage is None else os.fsencode(section.storage)
    if config.finder.reads_logs and storage is not None:
        buffer = storage
    disks = {"buffer": buffer, "ledger": os.fsencode(config.ledger_path.parent)}
    subject = Subject(
        program="endmgr",
        config=path,
        notes=config.notes(),
        lifecycle=LIFECYCLE,
        ledger=config.ledger_path,
        buffer=buffer,
        exclude=config.finder.exclude_list,
        disks=disks if storage is None else {**disks, "storage": storage},
        min_free=config.general.min_free,
        log=config.logging.file,
    )
    found = [*common_checks(subject), *_places(config, buffer, storage)]
    found.append(Check("catalogue", lambda: _catalogue(config), limit=_CATALOGUE))
    if canary:
        found.append(Check("canary", lambda: _canary(config), limit=_CATALOGUE))
    return found


def _places(config: EndpointConfig, buffer: bytes, storage: bytes | None) -> Iterator[Check]:
    """The directories that it works in."""
    if config.finder.reads_logs:
        yield Check("rsync logs", lambda: _logs(config))
    else:
        yield Check("buffer", lambda: directory("buffer", buffer, "the handoff manager delivers into it"))
    if storage is not None:
        purpose = "verified files are moved into it"
        yield Check("storage", lambda: goal("storage", storage, buffer, purpose))
    for place in config.cleaner.directories:
        yield Check("cleaner", partial(_cleaned, place))
    if config.endpoint.staging is not None:
        staging = os.fsencode(config.endpoint.staging)
        yield Check("staging", lambda: directory("staging", staging, "delivery notes lie in it"))


def _canary(config: EndpointConfig) -> Iterator[Result]:
    from endpoint.canary import fly
    from endpoint.catalogues.contract import CatalogueError

    # As the first start does: the catalogue may lie beside the ledger.
    config.ledger_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield from fly(_premises(config))
    except CatalogueError as error:
        yield fail("canary", error.message, error.hint)


def _premises(config: EndpointConfig) -> Premises:
    """The premises as the ledger knows them, if there is one that can be read."""
    database = None
    if is_there(config.ledger_path):
        with suppress(LedgerError), LedgerReader.open(config.ledger_path) as reader:
            database = reader.catalogue
    return Premises.of(config).remembering(database)


def _logs(config: EndpointConfig) -> Iterator[Result]:
    place = config.logs
    try:
        days = [name for name in os.listdir(place) if re.fullmatch(r"[0-9]{8}", name)]
    except OSError as error:
        yield fail("rsync logs", f"{place}: {error.strerror}", "finder.source says where they are")
        return
    if days:
        yield ok("rsync logs", f"{place}, the latest of {max(days)}")
    else:
        hint = "logs are looked for in a directory for each day, as 20261125"
        yield warn("rsync logs", f"{place} has no logs of any day", hint)


def _cleaned(place: Path) -> Iterator[Result]:
    """Whether the cleaner can work there; a catalogue may be about to make it."""
    if place.exists():
        yield from directory("cleaner", os.fsencode(place), "old files are removed from it")
    else:
        yield warn("cleaner", f"{place} is not there", "there is nothing to clean until it is")


def _catalogue(config: EndpointConfig) -> Iterator[Result]:
    from endpoint.catalogues.contract import CatalogueError
    from endpoint.catalogues.host import Host

    if config.has_own_catalogue and not config.ledger_path.parent.exists():
        yield ok("catalogue", "it will be created beside the ledger by the first start")
        return
    try:
        premises = _premises(config)
        with Host(premises.catalogue, premises.catalogue_config, timeout=_CATALOGUE) as host:
            yield ok("catalogue", host.version())
    except CatalogueError as error:
        yield fail("catalogue", error.message, hint_for(config, error.hint))
