"""What tests of several modules may ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.ledger.ledger import Ledger
from tests.ledgers import assert_sound, open_ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """The empty ledger of a handoff manager, which has to be sound when the test is over."""
    with open_ledger(tmp_path) as ledger:
        yield ledger
        assert_sound(ledger)
