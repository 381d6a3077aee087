"""What becomes of a running manager's configuration when somebody wants it to be read again."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

from common.errors import ConfigError, DbbError
from common.serving import Plan, Renewed

log = logging.getLogger(__name__)


class Renewable(Protocol):
    """What is read of a configuration here."""

    @property
    def ledger_path(self) -> Path: ...

    def changes(self, after: Self) -> Iterable[str]: ...


Config = TypeVar("Config", bound=Renewable)


class Renewal(Generic[Config]):
    """Reads a configuration again, and tells the log what is taken of it.

    Parameters
    ----------
    present
        The one that the manager works by.
    load, plan
        As for a start; either may refuse it.
    direct
        Has messages sent where a configuration says.
    """

    def __init__(
        self,
        present: Config,
        load: Callable[[], Config],
        plan: Callable[[Config], Plan],
        direct: Callable[[Config], None],
    ) -> None:
        self._present = present
        self._load = load
        self._plan = plan
        self._direct = direct

    def __call__(self) -> Renewed | None:
        """What comes of it; None if the one before stays in force."""
        try:
            return self._taken(self._load())
        except DbbError as error:
            for problem in error.message.splitlines():
                log.error("configuration refused: %s", problem)
            log.error("the old configuration stays in force. %s", error.hint)
            return None

    def _taken(self, coming: Config) -> Renewed:
        if coming.ledger_path != self._present.ledger_path:
            raise ConfigError(
                f"database.engine: the ledger of a running manager stays {self._present.ledger_path}",
                "For another ledger, stop the manager, and start it again.",
            )
        changed = tuple(self._present.changes(coming))
        at_work = [change for change in changed if not change.startswith("logging.")]
        plan = self._plan(coming) if at_work else None
        for change in changed:
            log.info("configuration: %s", change)
        self._direct(coming)
        self._present = coming
        log.info("the configuration was read again, and %s", _outcome(len(changed), is_at_once=not at_work))
        return Renewed(plan)


def _outcome(changed: int, *, is_at_once: bool) -> str:
    if not changed:
        return "is the same as before"
    keys = "1 key of it has" if changed == 1 else f"{changed} keys of it have"
    return f"{keys} changed" + ("" if is_at_once else ": it is taken up once what is in flight is done")
