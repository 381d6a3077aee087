"""The endpoint manager: what makes it another than the handoff's."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import DbbError
from common.serving import Plan, Tick
from common.serving import serve as serve_by
from endpoint.lifecycle import FINISHED, LIFECYCLE

if TYPE_CHECKING:
    from common.engine import Engine
    from common.ledger.ledger import Ledger
    from common.patience import Patience
    from common.pool import Pool
    from common.tasks import Task
    from endpoint.clerk import ClerkRecipe
    from endpoint.config import EndpointConfig


def serve(
    config: "EndpointConfig",
    *,
    once: bool = False,
    ready: Callable[[], None] = lambda: None,
    tick: Tick | None = None,
) -> int:
    """Be the endpoint manager, as `common.serving.serve` says."""
    _require_directories(config)

    # What they import takes as long as the start of the workers, which runs beside it.
    def recipe(_owner: str, _runtime: Path) -> "ClerkRecipe":
        from endpoint.assembly import recipe

        return recipe(config)

    def assemble(
        ledger: "Ledger", pool: "Pool[Task, object]", patience: "Patience", tick: Tick | None
    ) -> "AbstractContextManager[Engine]":
        from endpoint.assembly import assemble

        return assemble(config, ledger, pool, patience, tick)

    plan = Plan(
        ledger=config.ledger_path,
        lifecycle=LIFECYCLE,
        finished=FINISHED,
        workers=max(config.general.num_threads, config.ingester.num_workers),
        prepare="endpoint.clerk",
        recipe=recipe,
        assemble=assemble,
    )
    return serve_by(plan, once=once, ready=ready, tick=tick)


def _require_directories(config: "EndpointConfig") -> None:
    """A directory that is missing may be a missing mount: nothing is made in its place."""
    for key in ("buffer", "storage", "staging"):
        path: Path | None = getattr(config.endpoint, key)
        if path is not None and not path.is_dir():
            raise DbbError(
                f"endpoint.{key}: {path} is not a directory", "mount it, or make it, and start again"
            )
