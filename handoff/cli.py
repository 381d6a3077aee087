"""What makes the shared commands those of the handoff manager."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from common.app import ManagerKind, Places, run
from handoff.lifecycle import LIFECYCLE

if TYPE_CHECKING:
    from common.health import Check
    from common.serving import Plan
    from handoff.config import HandoffConfig


def main() -> NoReturn:
    run(kind())


def kind() -> "ManagerKind[HandoffConfig]":
    """The handoff manager and its commands."""
    return ManagerKind(
        program="hdfmgr",
        about="Carry files from the buffer to the endpoint site, prove that they arrived, and hold them.",
        example="handoff.yaml",
        lifecycle=LIFECYCLE,
        load=_load,
        effective=_effective,
        places=_places,
        plan=_plan,
        prepare="handoff.courier",
        checks=_checks,
    )


def _load(path: Path) -> "HandoffConfig":
    from handoff.config import load

    return load(path)


def _effective(config: "HandoffConfig") -> str:
    from handoff.config import effective

    return effective(config)


def _places(config: "HandoffConfig") -> Places:
    buffer, holding = os.fsencode(config.handoff.buffer), os.fsencode(config.handoff.holding)
    return Places(
        roots=(buffer, holding),
        disks={"buffer": buffer, "holding": holding, "ledger": os.fsencode(config.ledger_path.parent)},
        host=config.endpoint.host,
        exclude=config.general.exclude_list,
    )


def _plan(config: "HandoffConfig") -> "Plan":
    from handoff.manager import plan

    return plan(config)


def _checks(path: Path, config: "HandoffConfig", canary: bool) -> "Sequence[Check]":
    from handoff.check import checks

    return checks(path, config, canary=canary)
