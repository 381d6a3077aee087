"""Everything that can be killed is killed; every file is stored and ingested all the same, intact and once.

For more kills, or others: ``DBB_KILLS=2000 DBB_SEED=7 pytest tests/acceptance/test_endpoint_kills.py``.
"""

import os
import random
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from common.ledger.ledger import Ledger
from endpoint.lifecycle import LIFECYCLE
from tests.archive import Archive
from tests.ledgers import assert_sound
from tests.loopback import files_below
from tests.runs import Run, children, counts, descendants, eventually, rows

_CAMPAIGNS = 2
_KILLS = -(-int(os.environ.get("DBB_KILLS", "104")) // _CAMPAIGNS)
_SEED = int(os.environ.get("DBB_SEED", "1"))


class Fate:
    """Kills the manager or one of its descendants, and starts the next manager as cron does."""

    def __init__(self, archive: Archive, dice: random.Random) -> None:
        self.killed: Counter[str] = Counter()
        self._archive, self._dice = archive, dice
        self._in_a_row = 0
        self._run = Run(archive)

    def strike(self) -> None:
        """Kill somebody; a manager is followed by the next one at once."""
        time.sleep(self._dice.choice((0.1, 0.5, 1.0)) * self._dice.random())
        # Over a file that a fourth child in a row dies over, the manager suspects the file.
        if self._in_a_row < 2 and self._dice.random() < 0.5:
            victim = self._dice.choice(eventually(self._children))
            with suppress(psutil.NoSuchProcess):
                self.killed["worker" if victim.ppid() == self._run.process.pid else "catalogue"] += 1
                victim.kill()
            self._in_a_row += 1
            return
        self.killed["manager"] += 1
        self._in_a_row = 0
        self._run.kill()
        self._run.process.close(grace=0)
        self._run = Run(self._archive)

    def _children(self) -> list[psutil.Process]:
        return [process for kind in descendants(self._run.process).values() for process in kind]

    def close(self) -> None:
        """End the last manager, however far it is."""
        self._run.process.close()

    def end(self) -> None:
        """Let the last manager finish its work; before it is up, SIGTERM would simply end it."""
        pid = self._run.process.pid
        eventually(lambda: rows(self._archive, "SELECT pid FROM manager") == [(pid,)])
        assert self._run.stop(20) == 0, self._run.said


@pytest.mark.parametrize("campaign", range(_CAMPAIGNS))
def test_whatever_is_killed_every_file_is_ingested_once(tmp_path: Path, campaign: int) -> None:
    dice = random.Random(_SEED * 1000 + campaign)
    archive = Archive(tmp_path / "archive")
    archive.write_config(ingester={"batch_size": 5}, general={"pause": 0.1, "retry": {"attempts": 9}})
    content = dict[bytes, bytes]()
    with closing(Fate(archive, dice)) as fate:
        for number in range(_KILLS):
            new = {
                b"night %d/-%d \xff\n.dat" % (number % 7, len(content) + one): dice.randbytes(
                    dice.choice((0, 9, 20_000, 3_000_000))
                )
                for one in range(dice.randrange(1, 6))
            }
            archive.deliver(new, note=None)
            content |= new
            if dice.random() < 0.2:  # a delivery whose arrival could not be known is repeated
                path = dice.choice(sorted(content))
                if not os.path.lexists(os.path.join(os.fsencode(archive.buffer), path)):
                    archive.deliver({path: content[path]}, note=None)
            fate.strike()
        eventually(lambda: counts(archive).get("ingested") == len(content), within=60)
        eventually(lambda: files_below(archive.buffer) == {})
        fate.end()
    assert fate.killed["manager"] > 5
    assert fate.killed["worker"] + fate.killed["catalogue"] > 5
    assert files_below(archive.storage) == content
    assert archive.catalogued() == sorted(content)
    assert children(archive) == []
    query = "SELECT path, reason FROM files WHERE state NOT IN ('ingested', 'duplicate')"
    assert rows(archive, query) == []
    assert rows(archive, "SELECT * FROM history WHERE target IN ('failed', 'conflict', 'rejected')") == []
    with Ledger.open(archive.ledger, LIFECYCLE) as ledger:
        assert_sound(ledger)
