"""What discovery says of a buffer, with clocks that the test turns."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.discovery import Discovery
from common.ledger.ledger import Ledger
from common.scan import Scanner
from common.settle import Settling
from handoff.lifecycle import ABSENT
from tests.ledgers import NOW

OPEN = "current: waits, for somebody has it open for writing"


class Heard(logging.Handler):
    """What discovery has logged."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def heard() -> Iterator[list[str]]:
    handler, log = Heard(), logging.getLogger("common.discovery")
    log.addHandler(handler)
    yield handler.messages
    log.removeHandler(handler)


@pytest.fixture(autouse=True)
def _ignore_lease_breaks() -> Iterator[None]:
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


def walk(discovery: Discovery, now: float) -> None:
    """Have it walk the buffer once."""
    discovery.advance(now, NOW)
    discovery.advance(now, NOW)


def test_a_file_is_named_that_is_held_open_and_not_one_whose_name_is_used_again(
    tmp_path: Path, ledger: Ledger, heard: list[str]
) -> None:
    buffer = tmp_path / "buffer"
    buffer.mkdir()
    scanner = Scanner(os.fsencode(buffer))
    settling = Settling(scanner, settle=0)
    discovery = Discovery(ledger, scanner, settling, None, absent=ABSENT, pause=1, bulky_above=10**9)
    current = buffer / "current"
    with current.open("wb"):
        walk(discovery, 0)
    current.unlink()
    walk(discovery, 350)
    with current.open("wb"):
        walk(discovery, 400)
        assert heard == []
        walk(discovery, 500)
        walk(discovery, 800)
        assert heard == [OPEN]
