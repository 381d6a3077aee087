"""What is told of a batch names every file that did not go on."""

import logging
from collections.abc import Iterator
from io import StringIO

import pytest

from common.entry import Batch, Entry, Failed, Report
from common.errors import Failure, Scope
from common.files import Fence
from common.mishaps import tell
from handoff.lifecycle import SEND


@pytest.fixture
def log() -> Iterator[StringIO]:
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("common.mishaps")
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("path", "reason", "told"),
    [
        (b"a", "dd: error writing: File too large", "failed: a: dd: error writing: File too large; look"),
        (b"a b\n", "a b\\n: it did not arrive", "failed: a b\\n: it did not arrive; look"),
        (b"a", "a can't be read: Input/output error", "failed: a can't be read: Input/output error; look"),
    ],
)
def test_a_failure_is_told_with_the_name_of_its_file(
    log: StringIO, path: bytes, reason: str, told: str
) -> None:
    batch = Batch(1, SEND, (Entry(7, path, Fence(1, 2, 3, 4), None, SEND.working, 0, 1),))
    tell(batch, Report((Failed(7, Failure(Scope.FILE, "transfer incomplete", reason, "look")),)))
    assert log.getvalue() == f"{told}\n"
