"""The handoff manager: what makes it another than the endpoint's."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import DbbError
from common.serving import Plan, Tick
from common.serving import serve as serve_by
from handoff.lifecycle import LIFECYCLE

if TYPE_CHECKING:
    from common.engine import Engine
    from common.ledger.ledger import Ledger
    from common.patience import Patience
    from common.pool import Pool
    from common.tasks import Task
    from handoff.config import HandoffConfig
    from handoff.route import CourierRecipe


def serve(
    config: "HandoffConfig",
    *,
    once: bool = False,
    ready: Callable[[], None] = lambda: None,
    tick: Tick | None = None,
) -> int:
    """Be the handoff manager, as `common.serving.serve` says."""
    _require_directories(config)

    # What they import takes as long as the start of the workers, which runs beside it.
    def recipe(ledger: "Ledger", runtime: Path) -> "CourierRecipe":
        from handoff.assembly import recipe

        return recipe(config, ledger, runtime)

    def assemble(
        ledger: "Ledger", pool: "Pool[Task, object]", patience: "Patience", tick: Tick | None
    ) -> "AbstractContextManager[Engine]":
        from handoff.assembly import assemble

        return assemble(config, ledger, pool, patience, tick)

    plan = Plan(
        ledger=config.ledger_path,
        lifecycle=LIFECYCLE,
        finished=("held", "vanished"),
        workers=config.general.num_threads,
        prepare="handoff.route",
        recipe=recipe,
        assemble=assemble,
    )
    return serve_by(plan, once=once, ready=ready, tick=tick)


def _require_directories(config: "HandoffConfig") -> None:
    """A directory that is missing may be a missing mount: nothing is made in its place."""
    for key, path in (("buffer", config.handoff.buffer), ("holding", config.handoff.holding)):
        if not path.is_dir():
            raise DbbError(
                f"handoff.{key}: {path} is not a directory", "mount it, or make it, and start again"
            )
