"""What a worker does without its disks: nothing, for an empty mount point looks like files that have gone."""

from collections.abc import Iterable
from dataclasses import replace

from common.entry import Done, Failed, Outcome, Report
from common.errors import Failure, Scope
from common.mounts import Ground


def missing_disk(grounds: Iterable[Ground], scope: Scope) -> Failure | None:
    """Why nothing can be done now, if that is so."""
    for ground in grounds:
        if trouble := ground.trouble():
            return Failure(scope, "disk not mounted", trouble, "mount it; it goes on by itself")
    return None


def doubted(report: Report, missing: Failure) -> Report:
    """The report without what would look the same if the files had left the buffer."""

    def doubt(outcome: Outcome) -> Outcome:
        is_gone = isinstance(outcome, Done) and outcome.state == "vanished"
        return Failed(outcome.entry_id, missing) if is_gone else outcome

    return replace(report, outcomes=tuple(doubt(outcome) for outcome in report.outcomes))
