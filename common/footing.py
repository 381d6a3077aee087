"""What a worker does without its disks: nothing, for an empty mount point looks like files that have gone."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from common.entry import Done, Failed, Outcome, Report
from common.errors import Failure, Scope
from common.mounts import Ground

if TYPE_CHECKING:  # workers do without it
    from common.ledger.ledger import Ledger


def familiar(grounds: Iterable[Ground], ledger: "Ledger") -> tuple[Ground, ...]:
    """The grounds as the ledger knows them, which learns what has changed.

    A disk that is not mounted as a manager starts is missed as one that goes while it works.
    """
    before = ledger.mount_points
    known = tuple(ground.remembered(before.get(ground.path)) for ground in grounds)
    now = {ground.path: ground.point for ground in known}
    if now != before:
        ledger.note_mount_points(now)
    return known


def missing_disk(grounds: Iterable[Ground], scope: Scope) -> Failure | None:
    """Why nothing can be done now, if that is so."""
    for ground in grounds:
        if trouble := ground.trouble():
            hint = "mount it; it goes on by itself"
            if ground.is_remembered:
                hint += " (if it is to have no disk of its own any more: make a directory in it, start again)"
            return Failure(scope, "disk not mounted", trouble, hint)
    return None


def doubted(report: Report, missing: Failure) -> Report:
    """The report without what would look the same if the files had left the buffer."""

    def doubt(outcome: Outcome) -> Outcome:
        is_gone = isinstance(outcome, Done) and outcome.state == "vanished"
        return Failed(outcome.entry_id, missing) if is_gone else outcome

    return replace(report, outcomes=tuple(doubt(outcome) for outcome in report.outcomes))
