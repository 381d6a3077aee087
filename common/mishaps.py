"""What became of a batch, told; and files over which workers or programs die again and again."""

import logging
from collections import Counter
from dataclasses import replace

from common.entry import Batch, Done, Entry, Failed, Report
from common.errors import Failure, Scope
from common.pool import Crash
from common.wording import duration, files, size
from common.wording import path as shown

log = logging.getLogger(__name__)

_DEADLY_DEATHS = 3
"""A file over which workers or transfers die more often than this in a row is held to be the reason."""


class Mishaps:
    """Counts, by entry, the deaths since it last had an outcome."""

    def __init__(self) -> None:
        self._deaths: Counter[int] = Counter()

    def take_back(self, batch: Batch, report: Report) -> Report:
        """Files without an outcome go back: a worker or a program was killed over them.

        That costs them no attempt, unless it happens again and again: then they may be the reason.
        """
        for outcome in report.outcomes:
            self._deaths.pop(outcome.entry_id, None)
        told = {outcome.entry_id for outcome in report.outcomes}
        lost = [entry for entry in batch.entries if entry.id not in told]
        self._deaths.update(entry.id for entry in lost)
        if lost:
            log.warning("%s: taken back: %s", files(len(lost)), report.error)
        blamed = tuple(
            Failed(entry.id, _deadly(entry, report.error))
            for entry in lost
            if self._deaths[entry.id] > _DEADLY_DEATHS
        )
        return replace(report, outcomes=(*report.outcomes, *blamed))


def tell(batch: Batch, report: Report) -> None:
    """One line a batch, and one for each file that did not go on."""
    done = [o for o in report.outcomes if isinstance(o, Done) and o.state == batch.step.target]
    seconds = sum(seconds for name, seconds in report.phases.items() if "." not in name)
    # What keeps everything waiting is told elsewhere, and not at each try.
    waits = any(isinstance(o, Failed) and o.failure.scope is not Scope.FILE for o in report.outcomes)
    log.log(
        logging.DEBUG if waits and not done else logging.INFO,
        "%s: %s of %s, %s in %s",
        batch.step.target,
        f"{len(done):,}",
        files(len(batch.entries)),
        size(batch.bytes),
        duration(seconds),
    )
    paths = {entry.id: entry.path for entry in batch.entries}
    for outcome in report.outcomes:
        if isinstance(outcome, Done) and outcome.state == batch.step.target:
            continue
        path = shown(paths[outcome.entry_id])
        if isinstance(outcome, Done):
            log.warning("%s: %s: %s", outcome.state, path, outcome.reason.removeprefix(f"{path}: "))
        elif outcome.failure.scope is Scope.FILE:
            # What a program said of the whole transfer names no file, or another one.
            reason = outcome.failure.reason
            named = reason if reason.startswith((f"{path}: ", f"{path} ")) else f"{path}: {reason}"
            log.warning("failed: %s", "; ".join(filter(None, (named, outcome.failure.hint))))


def worker_died(crash: Crash, scope: Scope) -> Failure:
    """What to say of a task that no file asked for, and that its worker did not live to answer."""
    hint = "it is resumed; if it comes again, see the log at level DEBUG"
    return Failure(scope, "worker died", crash.reason, hint)


def _deadly(entry: Entry, reason: str) -> Failure:
    hint = "see the log; is there too little memory for it, or does its content upset the transfer?"
    return Failure(Scope.FILE, "killed again and again", f"{shown(entry.path)}: {reason}", hint)
