"""A canary: a made-up file with an awkward name goes the whole way, and is removed again at both ends.

It is carried by the code that carries every file: hashed, sent by the transport that would be used,
verified at rest, put in place, moved to holding. Only its directories are its own, so that neither a
running manager nor the endpoint manager takes it for one of the instrument's: here, a temporary one
in the place of the buffer and one within it in the place of holding; there, a directory of its own in
staging in the place of the buffer, on the same filesystem, and no delivery note. That the real
buffers and holding can be written is what other checks tell.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from tempfile import TemporaryDirectory

from common.canary import fly as fly_by
from common.canary import hatch, tell_nobody
from common.entry import Batch, Report
from common.health import Result, ok
from common.remote import Remote
from common.tasks import Work
from handoff.courier import Courier
from handoff.delivery import batch_name
from handoff.lifecycle import LIFECYCLE, SEND
from handoff.route import Orders, Route
from handoff.survey import survey


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
    entry = hatch(route.buffer, SEND.source)
    _look(route, remote)
    courier = Courier(route, remote, tell_nobody)

    def work(batch: Batch) -> Report:
        report = courier.work(Work(batch, orders))
        assert isinstance(report, Report)
        return report

    by = f" by {orders.transfer}, and verified at rest,"
    yield from fly_by(entry, LIFECYCLE.steps, work, number, by)


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
