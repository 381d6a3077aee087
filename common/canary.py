"""A canary: a made-up file with an awkward name that goes the way of every file, by the same code."""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from common.entry import Batch, Done, Entry, Failed, Report
from common.files import Fence
from common.health import Result, Verdict, fail, ok
from common.lifecycle import Step
from common.wording import duration
from common.wording import path as shown

PATH = b'canary \xff/-it\'s "$(a)"\n;*?[x] \\ .fits'
_SIZE = 100_000


def hatch(buffer: bytes, state: str) -> Entry:
    """Write it into a directory in the place of the buffer, which is made."""
    path = os.path.join(buffer, PATH)
    os.makedirs(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(secrets.token_bytes(_SIZE))
    return Entry(1, PATH, Fence.of(os.lstat(path)), None, state, attempts=0, claims=1)


def fly(
    entry: Entry, steps: Iterable[Step], work: Callable[[Batch], Report], number: int, by: str = ""
) -> Iterator[Result]:
    """Take it through the steps; tells how each went, and ends at the first that went wrong.

    Parameters
    ----------
    number
        Of its batches: one that no real batch has.
    by
        What is told of the first step beside its time.
    """
    for step in steps:
        report = work(Batch(number, step, (entry,)))
        result = _judged(step, report, by)
        yield result
        if result.verdict is not Verdict.OK:
            return
        outcome = report.outcomes[0]
        entry, by = replace(entry, state=step.target, checksum=outcome.checksum or entry.checksum), ""


def tell_nobody(phase: str, count: int) -> None:
    """Progress of a canary, that nobody waits for."""


def _judged(step: Step, report: Report, by: str) -> Result:
    """What came of one step."""
    outcome = report.outcomes[0] if report.outcomes else None
    if isinstance(outcome, Done) and outcome.state == step.target:
        took = duration(sum(seconds for phase, seconds in report.phases.items() if "." not in phase))
        return ok("canary", f"{shown(PATH)} {outcome.state}{by} in {took}")
    if isinstance(outcome, Failed):
        return fail("canary", f"{outcome.failure.cause}: {outcome.failure.reason}", outcome.failure.hint)
    told = f"{outcome.state}: {outcome.reason}" if outcome else report.error or "no outcome"
    return fail("canary", f"it did not get through `{step.working}`: {told}", "see what the reason says")
