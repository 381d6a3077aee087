"""The handoff manager: what makes it another than the endpoint's."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import DbbError
from common.serving import Plan
from handoff.lifecycle import LIFECYCLE

if TYPE_CHECKING:
    from common.engine import Engine, Means
    from common.ledger.ledger import Ledger
    from handoff.config import HandoffConfig
    from handoff.route import CourierRecipe


def plan(config: "HandoffConfig") -> Plan:
    """What `common.serving.serve` needs to be the handoff manager.

    Raises
    ------
    DbbError
        A directory is not there.
    """
    _require_directories(config)

    def recipe(ledger: "Ledger", runtime: Path) -> "CourierRecipe":
        from handoff.route import CourierRecipe, Route

        return CourierRecipe(Route.known(config, ledger), runtime)

    # What it imports takes as long as the workers' logins, which go on beside it.
    def assemble(means: "Means") -> "AbstractContextManager[Engine]":
        from handoff.assembly import assemble

        return assemble(config, means)

    return Plan(
        ledger=config.ledger_path,
        lifecycle=LIFECYCLE,
        finished=("held", "vanished"),
        workers=config.general.num_threads,
        recipe=recipe,
        assemble=assemble,
    )


def _require_directories(config: "HandoffConfig") -> None:
    """A directory that is missing may be a missing mount: nothing is made in its place."""
    for key, path in (("buffer", config.handoff.buffer), ("holding", config.handoff.holding)):
        if not path.is_dir():
            raise DbbError(
                f"handoff.{key}: {path} is not a directory", "mount it, or make it, and start again"
            )
