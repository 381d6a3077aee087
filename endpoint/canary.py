"""The endpoint's canary: verified and stored as any other file, between directories that nobody looks into.

They lie in storage, on the filesystem that files are moved to, and are removed again. The catalogue is
opened and not given the canary, for it could not be asked to forget it.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from tempfile import TemporaryDirectory

from common.canary import fly as fly_by
from common.canary import hatch, tell_nobody
from common.entry import Batch, Report
from common.exchange import delivery_note
from common.files import Checksum, checksum
from common.health import Result, ok
from common.tasks import Work
from endpoint.catalogues.host import Host
from endpoint.clerk import Clerk
from endpoint.lifecycle import STORE, VERIFY
from endpoint.premises import ALGORITHM, Premises


@dataclass(frozen=True, slots=True)
class _Delivered:
    path: bytes
    size: int
    checksum: Checksum


def fly(premises: Premises) -> Iterator[Result]:
    """Send the canary its way; tells how that went.

    Raises
    ------
    CatalogueError
        The catalogue can't be opened.
    OSError
        Storage can't be written.
    """
    if premises.storage is None:
        yield ok("canary", "none was sent: files are ingested where they lie, and a canary would be, too")
    else:
        with TemporaryDirectory(prefix=".dbb-canary-", dir=os.fsdecode(premises.storage)) as home:
            yield from _flight(_own(premises, os.fsencode(home)))
        yield ok("canary", "removed again")
    with Host(premises.catalogue, premises.catalogue_config, timeout=premises.timeout) as host:
        host.open()
        yield ok("canary", "the catalogue can be opened; it was not given the canary")


def _own(premises: Premises, home: bytes) -> Premises:
    buffer, storage, staging = (os.path.join(home, name) for name in (b"buffer", b"storage", b"staging"))
    for path in (storage, os.path.join(staging, b".notes")):
        os.makedirs(path)
    return replace(premises, buffer=buffer, storage=storage, staging=staging, require_note=True)


def _flight(premises: Premises) -> Iterator[Result]:
    entry = hatch(premises.buffer, VERIFY.source)
    known, _ = checksum(os.path.join(premises.buffer, entry.path), ALGORITHM)
    assert premises.staging is not None
    with open(os.path.join(premises.staging, b".notes", b"canary.jsonl"), "wb") as note:
        delivered = _Delivered(entry.path, entry.fence.size, known)
        note.write(delivery_note([delivered], datetime.now(UTC).isoformat()))
    with ExitStack() as stack:
        clerk = Clerk(premises, tell_nobody, stack)

        def work(batch: Batch) -> Report:
            report = clerk.work(Work(batch, None))
            assert isinstance(report, Report)
            return report

        yield from fly_by(entry, (VERIFY, STORE), work, time.time_ns())
