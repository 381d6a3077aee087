"""Files that are taken out of a buffer, by both managers."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from common.entry import Done, Entry, Outcome
from common.files import checksum
from common.placing import temporary_beside
from endpoint.config import load
from endpoint.premises import Premises
from endpoint.store import Storage
from handoff.holding import Holding
from tests.archive import Archive
from tests.loopback import write_file

Take = Callable[[Entry], tuple[Outcome, ...]]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path / "archive")
    archive.write_config()
    return archive


@pytest.fixture(params=["handoff", "endpoint"])
def take(request: pytest.FixtureRequest, archive: Archive) -> Take:
    """Takes a file from the buffer to storage, or to what is the holding area then."""
    if request.param == "endpoint":
        storage = Storage(Premises.of(load(archive.config)))
        return lambda entry: storage.take([entry])
    holding = Holding(os.fsencode(archive.buffer), os.fsencode(archive.storage))
    return lambda entry: holding.take([entry])


def test_what_a_killed_try_has_copied_of_a_file_that_is_gone_does_not_stay(
    archive: Archive, take: Take
) -> None:
    source = write_file(archive.buffer, b"a.dat", b"light")
    known, fence = checksum(source, "sha256")
    entry = Entry(1, b"a.dat", fence, known, "", attempts=0, claims=2)
    part = temporary_beside(os.path.join(os.fsencode(archive.storage), b"a.dat"), known)
    Path(os.fsdecode(part)).write_bytes(b"li")
    os.unlink(source)
    assert [outcome.state for outcome in take(entry) if isinstance(outcome, Done)] == ["vanished"]
    assert os.listdir(archive.storage) == []
