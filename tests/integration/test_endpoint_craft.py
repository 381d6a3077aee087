"""What the endpoint manager decides about files that its catalogue has failed over."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.clock import now_ms
from common.engine import Means
from common.entry import Batch, Done, Failed, Outcome, Report
from common.errors import Failure, Scope
from common.ledger.ledger import Ledger
from common.patience import Patience
from common.pool import Pool, Reserve
from common.signals import Signals
from common.supervisor import Supervisor
from common.tasks import Task
from endpoint.craft import Endpoint
from endpoint.lifecycle import INGEST, LIFECYCLE, STORE, VERIFY
from endpoint.oods import load
from endpoint.premises import Premises
from tests.archive import Archive
from tests.ledgers import checksum, found

CRASH = Failure(Scope.FILE, "crashed", "the catalogue's process was killed")


@dataclass(frozen=True, slots=True)
class Manager:
    """A craft and its ledger, with a test in the place of engine and workers. Times are seconds."""

    craft: Endpoint
    ledger: Ledger
    attempts: int
    began_at: int
    """In milliseconds since the epoch; not long ago, for the craft has a clock of its own."""

    def store(self, *paths: bytes) -> None:
        """Enter files, and take them so far that they wait for the catalogue."""
        self.ledger.record([found(path) for path in paths], now_ms=self.began_at)
        for step in (VERIFY, STORE):
            batch = self.ledger.claim(step, limit=99, max_bytes=10**9, worker=0, now_ms=self.began_at)
            assert batch is not None
            done = [Done(entry.id, step.target, checksum("light")) for entry in batch.entries]
            self._finish(batch, Report(tuple(done)), 0)

    def ingest(self, now: float) -> list[bytes]:
        """Have a worker take one file, if it may; what is called bad fails, and takes two seconds."""
        claim = self.craft.allowance(INGEST, 0, [], now)
        assert claim is not None
        batch = self.ledger.claim(INGEST, limit=1, max_bytes=10**9, worker=0, now_ms=self._at(now))
        if batch is None:
            return []
        outcomes: list[Outcome] = [
            Failed(entry.id, CRASH) if entry.path.startswith(b"bad") else Done(entry.id, INGEST.target)
            for entry in batch.entries
        ]
        report = Report(tuple(outcomes), {INGEST.working: 2.0})
        self._finish(batch, self.craft.worked(batch, report, now), now)
        return [entry.path for entry in batch.entries]

    def causes(self) -> set[str]:
        """Of what is in trouble."""
        return {total.cause for total in self.ledger.totals()} - {""}

    def _finish(self, batch: Batch, report: Report, now: float) -> None:
        backoff = dict.fromkeys(range(1, self.attempts), 5.0).get
        self.ledger.finish(batch, report, backoff=backoff, now_ms=self._at(now))

    def _at(self, now: float) -> int:
        return self.began_at + round(now * 1000)


@pytest.fixture(params=[1])
def manager(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Manager]:
    """One that tries a file so often."""
    archive = Archive(tmp_path)
    config = load(archive.write_config(general={"retry": {"attempts": request.param}}))
    with Signals() as signals, Ledger.open(archive.ledger, LIFECYCLE) as ledger:
        supervisor = Supervisor()
        pool: Pool[Task, object] = Pool(1, Reserve("endpoint.clerk"))
        means = Means(ledger, Patience(signals, supervisor), pool, supervisor, now_ms())
        craft = Endpoint(config, Premises.of(config), means)
        yield Manager(craft, ledger, request.param, means.started_at)


def test_what_failed_over_the_catalogue_is_tried_once_more_when_nothing_waits(manager: Manager) -> None:
    manager.store(b"bad")
    assert (manager.ingest(0), manager.causes()) == ([b"bad"], {"catalogue in doubt"})
    assert manager.ingest(1) == []
    manager.store(b"a", b"b")
    assert [manager.ingest(now) for now in (2, 3)] == [[b"a"], [b"b"]]
    assert (manager.ingest(4), manager.causes()) == ([b"bad"], {"crashed"})
    manager.store(b"c")
    assert [manager.ingest(now) for now in (100, 101)] == [[b"c"], []]


def test_files_that_are_tried_once_more_in_vain_take_a_tenth_of_the_time(manager: Manager) -> None:
    manager.store(b"bad 1", b"bad 2")
    assert [manager.ingest(now) for now in (0, 1)] == [[b"bad 1"], [b"bad 2"]]
    manager.store(b"a")
    assert [manager.ingest(now) for now in (2, 3)] == [[b"a"], [b"bad 1"]]
    manager.store(b"b")
    assert [manager.ingest(now) for now in (4, 22.9, 23.1)] == [[b"b"], [], [b"bad 2"]]


@pytest.mark.parametrize("manager", [2], indirect=True)
@pytest.mark.parametrize(
    ("order", "cause"), [((b"good", b"bad"), "catalogue in doubt"), ((b"bad", b"good"), "crashed")]
)
def test_what_fails_before_and_after_another_file_is_ingested_is_in_no_doubt(
    manager: Manager, order: tuple[bytes, bytes], cause: str
) -> None:
    for now, path in enumerate(order):
        manager.store(path)
        assert manager.ingest(now * 2) == [path]
    assert (manager.ingest(9), manager.causes()) == ([b"bad"], {cause})
