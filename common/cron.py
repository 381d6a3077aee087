"""The start that cron calls every minute, answered in a moment when a manager runs already."""

from collections.abc import Sequence
from pathlib import Path

from common.config.origin import ledger_of
from common.errors import DbbError
from common.ledger.lock import holder

_FLAGS = frozenset({"--daemon", "--quiet", "--debug"})


def has_nothing_to_do(words: Sequence[str]) -> bool:
    """Whether this is ``start CONFIG --quiet``, with or without ``--daemon``, of a manager that runs.

    Importing what reads the command line and the configuration would take most of a start's time.
    Whatever is wrong with either is for them to tell.
    """
    verb, *rest = words or ("",)
    flags = {word for word in rest if word.startswith("-")}
    named = [word for word in rest if not word.startswith("-")]
    if verb not in ("start", "run") or "--quiet" not in flags or not flags <= _FLAGS or len(named) != 1:
        return False
    try:
        return holder(ledger_of(Path(named[0]))) is not None
    except (DbbError, ValueError):
        return False
