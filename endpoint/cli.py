"""What makes the shared commands those of the endpoint manager."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from common.app import ManagerKind, Places, build, run
from endpoint.lifecycle import LIFECYCLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.health import Check
    from endpoint.config import EndpointConfig


def main() -> NoReturn:
    run("endmgr", application())


def application() -> typer.Typer:
    """All of its commands."""
    return build(
        ManagerKind(
            program="endmgr",
            about="Verify what arrived at the endpoint site, store it, and ingest it into a catalogue.",
            example="endpoint.yaml",
            lifecycle=LIFECYCLE,
            load=_load,
            effective=_effective,
            places=_places,
            serve=_serve,
            checks=_checks,
        )
    )


def _load(path: Path) -> "EndpointConfig":
    from endpoint.config import load

    return load(path)


def _effective(config: "EndpointConfig") -> str:
    from endpoint.config import effective

    return effective(config)


def _places(config: "EndpointConfig") -> Places:
    buffer, storage = os.fsencode(config.endpoint.buffer), os.fsencode(config.endpoint.storage)
    return Places(
        roots=(buffer, storage),
        disks={"buffer": buffer, "storage": storage, "ledger": os.fsencode(config.ledger_path.parent)},
    )


def _serve(
    config: "EndpointConfig", *, once: bool, ready: Callable[[], None], tick: Callable[[], None] | None
) -> int:
    from endpoint.manager import serve

    return serve(config, once=once, ready=ready, tick=tick)


def _checks(path: Path, config: "EndpointConfig", canary: bool) -> "Sequence[Check]":
    from endpoint.check import checks

    return checks(path, config, canary=canary)
