"""A canary: a made-up file with an awkward name goes the whole way, and is removed again at both ends.

It is carried by the code that carries every file: hashed, sent by the transport that would be used,
verified at rest, put in place, moved to holding. Only its directories are its own, so that neither a
running manager nor the endpoint manager takes it for one of the instrument's: here, a temporary one
in the place of the buffer and one within it in the place of holding; there, a directory of its own in
staging in the place of the buffer, on the same filesystem, and no delivery note. That the real
buffers and holding can be written is what other checks tell.
"""

import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from tempfile import TemporaryDirectory

from common.entry import Batch, Done, Entry, Failed, Report
from common.files import Fence
from common.health import Result, Verdict, fail, ok
from common.lifecycle import Step
from common.remote import Remote
from common.tasks import Work
from common.wording import duration
from common.wording import path as shown
from handoff.courier import Courier
from handoff.delivery import batch_name
from handoff.lifecycle import LIFECYCLE, SEND
from handoff.route import Orders, Route
from handoff.survey import survey

_PATH = b'canary \xff/-it\'s "$(a)"\n;*?[x] \\ .fits'
_SIZE = 100_000


def fly(route: Route, remote: Remote, orders: Orders) -> Iterator[Result]:
    """Send the canary along a route, as these orders say; tells how that went.

    Raises
    ------
    RemoteError
        The endpoint can't be asked.
    """
    # Batches of a ledger are counted from 1, so that no real one ever has these numbers.
    number = time.time_ns()
    target = b"batch-%s-%d" % (route.owner.encode(), number + 1)
    try:
        with TemporaryDirectory(prefix="dbb-canary-") as home:
            own = _own(route, os.fsencode(home), target)
            yield from _flight(own, remote, orders, number)
    finally:
        left = (batch_name(route.owner, Batch(number, SEND, ())), target)
        _look(route, remote, leftovers=left, make=False)
    yield ok("canary", "removed again at both ends")


def _own(route: Route, home: bytes, target: bytes) -> Route:
    """The same route between directories that nobody else looks into."""
    return replace(
        route,
        buffer=os.path.join(home, b"buffer"),
        holding=os.path.join(home, b"holding"),
        endpoint_buffer=os.path.join(route.staging, target),
        notes=False,
    )


def _flight(route: Route, remote: Remote, orders: Orders, number: int) -> Iterator[Result]:
    entry = _hatch(route.buffer)
    _look(route, remote)
    courier = Courier(route, remote, _tell_nobody)
    for step in LIFECYCLE.steps:
        report = courier.work(Work(Batch(number, step, (entry,)), orders))
        assert isinstance(report, Report)
        result = _judged(step, report, orders)
        yield result
        if result.verdict is not Verdict.OK:
            return
        entry = _moved_on(entry, step, report)


def _look(route: Route, remote: Remote, leftovers: tuple[bytes, ...] = (), *, make: bool = True) -> None:
    """Make the directories there that the route names, if asked to, and remove leftovers of ours."""
    survey(
        remote,
        staging=route.staging,
        buffer=route.endpoint_buffer,
        owner=route.owner,
        keep=None,
        leftovers=leftovers,
        make=make,
        patience=route.patience,
    )


def _hatch(buffer: bytes) -> Entry:
    path = os.path.join(buffer, _PATH)
    os.makedirs(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(secrets.token_bytes(_SIZE))
    return Entry(1, _PATH, Fence.of(os.lstat(path)), None, SEND.source, attempts=0, claims=1)


def _judged(step: Step, report: Report, orders: Orders) -> Result:
    """What came of one step."""
    outcome = report.outcomes[0] if report.outcomes else None
    if isinstance(outcome, Done) and outcome.state == step.target:
        took = duration(sum(seconds for phase, seconds in report.phases.items() if "." not in phase))
        how = f" by {orders.transfer}, and verified at rest," if step == SEND else ""
        return ok("canary", f"{shown(_PATH)} {outcome.state}{how} in {took}")
    if isinstance(outcome, Failed):
        return fail("canary", f"{outcome.failure.cause}: {outcome.failure.reason}", outcome.failure.hint)
    told = f"{outcome.state}: {outcome.reason}" if outcome else report.error or "no outcome"
    return fail("canary", f"it did not get through `{step.working}`: {told}", "look at the endpoint by hand")


def _moved_on(entry: Entry, step: Step, report: Report) -> Entry:
    outcome = report.outcomes[0]
    return replace(entry, state=step.target, checksum=outcome.checksum or entry.checksum)


def _tell_nobody(phase: str, count: int) -> None:
    """A canary's progress is of no interest."""
