"""What makes the shared commands those of the endpoint manager."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from common.app import ConfigPath, Debug, ManagerKind, Places, run
from endpoint.lifecycle import LIFECYCLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.health import Check
    from common.serving import Plan
    from common.status import Words
    from endpoint.config import EndpointConfig


Sources = Annotated[
    list[str] | None,
    typer.Argument(metavar="SOURCE", help="Files or directories, relative to storage.", show_default=False),
]


def main() -> NoReturn:
    run(kind())


def kind(*, level: str | None = None) -> "ManagerKind[EndpointConfig]":
    """The endpoint manager and its commands; a `level` of logging prevails over the configuration's."""
    return ManagerKind(
        program="endmgr",
        about="Verify what arrived at the endpoint site, store it, and ingest it into a catalogue.",
        example="endpoint.yaml",
        lifecycle=LIFECYCLE,
        load=partial(_load, level=level),
        effective=_effective,
        places=_places,
        plan=_plan,
        prepare="endpoint.clerk",
        checks=_checks,
        words=_words,
        verbs=(("backfill", _backfill, "endpoint.yaml night1"),),
    )


def _load(path: Path, *, level: str | None = None) -> "EndpointConfig":
    from endpoint.oods import load

    return load(path, level=level)


def _effective(config: "EndpointConfig") -> str:
    from endpoint.config import effective

    return effective(config)


def _places(config: "EndpointConfig") -> Places:
    section = config.endpoint
    disks = {"buffer": os.fsencode(section.buffer)}
    if section.storage is not None:
        disks["storage"] = os.fsencode(section.storage)
    roots = tuple(disks.values())
    return Places(
        roots=roots[::-1] if config.finder.reads_logs else roots,
        disks={**disks, "ledger": os.fsencode(config.ledger_path.parent)},
        exclude=config.finder.exclude_list,
    )


def _plan(config: "EndpointConfig") -> "Plan":
    from endpoint.manager import plan

    return plan(config)


def _checks(path: Path, config: "EndpointConfig", canary: bool) -> "Sequence[Check]":
    from endpoint.check import checks

    return checks(path, config, canary=canary)


def _words() -> "Words":
    from common.status import Words
    from endpoint.words import WORDS, original

    return Words(tuple(WORDS), original)


def _backfill(
    config: ConfigPath,
    sources: Sources = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Enter nothing; tell how many files are not known.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Enter files that are in storage already, without touching or ingesting them.

    Without a SOURCE: all that lies in storage. Each file is hashed once: what is known already is passed
    over, so that a run that was ended goes on where it was. It works whether the manager runs or not.
    """
    from endpoint.backfilling import backfill

    raise typer.Exit(backfill("endmgr", _load(config), sources or (), dry_run=dry_run))
