"""What the ledger's verbs and questions cost, beside how many files it holds: ``python -m bench.ledger``.

Each ledger is filled with so many held files, one in a hundred of them failed, with the history that
led there. For speed its indexes and triggers are dropped meanwhile and made again from their own SQL,
and totals are counted: the schema is then the same, and so are the rows that the triggers would have
written. Upon that lies the same backlog of waiting files in each. Then all ledgers are used in turn,
round after round, so that what else the machine does falls on all of them alike.
"""

import argparse
import os
import platform
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from common.entry import Done, Report
from common.files import Checksum, Fence
from common.ledger.ledger import Ledger
from common.ledger.reader import LedgerReader
from common.ledger.rows import Found, ManagerRow
from common.lifecycle import Step
from handoff.lifecycle import HOLD, LIFECYCLE, SEND

Answer = TypeVar("Answer")

NOW = 1_700_000_000_000
PAGE = 1000
BATCH = 500
BACKLOG = 20_000
WAY = ("record, new", "claim, sending", "move, delivered", "claim, holding", "move, held")
"""What is done for each file, from the buffer into holding."""
BYTES_PER_ROW = 1200
"""On the disk, amply."""

# A night has 5,000 files.
_FILES = """
    INSERT INTO files (
        id, path, inode, size, mtime_ns, ctime_ns, algorithm, digest, state, settled,
        step, attempts, due_at, cause, found_at, changed_at
    )
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows)
    SELECT
        n,
        CAST(printf('raw/night-%05d/exposure_%08d_of_the_camera.fits', n / 5000, n) AS BLOB),
        n,
        20000,
        (:now - (:rows - n) * 1000) * 1000000,
        (:now - (:rows - n) * 1000) * 1000000,
        'sha256',
        randomblob(32),
        iif(n % 100, 'held', 'failed'),
        iif(n % 100, 1, 0),
        iif(n % 100, NULL, 'sending'),
        iif(n % 100, 0, 3),
        iif(n % 100, NULL, :now + 86400000 + n),
        iif(n % 100, '', printf('cause %d', n / 100 % 10)),
        :now - (:rows - n) * 1000,
        :now - (:rows - n) * 1000 + 5
    FROM numbers
    WHERE :rows > 0
"""

_HISTORY = """
    INSERT INTO history (file_id, seq, at, source, target, batch_id, reason)
    SELECT id, column1, changed_at, column2, column3, column4 * (id / 500 + 1), ''
    FROM files
    CROSS JOIN (
        VALUES
            (1, '', 'found', NULL),
            (2, 'found', 'sending', 1),
            (3, 'sending', 'delivered', 1),
            (4, 'delivered', 'holding', 1),
            (5, 'holding', 'held', 1)
    )
    WHERE state = 'held'
        OR column1 < 3
"""

_BATCHES = """
    INSERT INTO batches (id, step, worker, started_at, finished_at, files, bytes, example, phases)
    SELECT id, 'sending', 0, found_at, changed_at, 500, 10000000, path, '{"send": 0.5, "place": 0.1}'
    FROM files
    WHERE id <= :rows / 250
"""

_TOTALS = """
    INSERT INTO totals (state, cause, files, bytes)
    SELECT state, cause, count(*), sum(size)
    FROM files
    GROUP BY state, cause
"""

_MADE_AGAIN = """
    SELECT type, name, sql
    FROM sqlite_master
    WHERE type IN ('index', 'trigger')
        AND sql IS NOT NULL
"""


def fill(path: Path, rows: int) -> None:
    """Make a ledger that holds so many files."""
    Ledger.open(path, LIFECYCLE).close()
    connection = sqlite3.connect(path, isolation_level=None)
    schema = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -1000000")
    again = connection.execute(_MADE_AGAIN).fetchall()
    for kind, name, _ in again:
        connection.execute(f"DROP {kind} {name}")
    values = {"rows": rows, "now": NOW}
    for statement in (_FILES, _HISTORY, _BATCHES, _TOTALS):
        named = {name: value for name, value in values.items() if f":{name}" in statement}
        connection.execute("BEGIN")
        connection.execute(statement, named)
        connection.execute("COMMIT")
    for _, _, sql in sorted(again):
        connection.execute(sql)
    assert connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == schema
    connection.close()


class Bench:
    """A ledger of some size, and the times that its verbs and questions took."""

    def __init__(self, directory: Path, rows: int, clock: Callable[[], float]) -> None:
        path = directory / f"{rows}.db"
        began = time.perf_counter()
        fill(path, rows)
        seconds = time.perf_counter() - began
        say(f"filled {rows:,} rows in {seconds:.0f} s: {path.stat().st_size / 1e6:,.0f} MB")
        self.rows = rows
        self._clock = clock
        self.ledger = Ledger.open(path, LIFECYCLE)
        self.reader = LedgerReader.open(path)
        self.per_file: defaultdict[str, list[float]] = defaultdict(list)
        self.per_query: defaultdict[str, list[float]] = defaultdict(list)
        self._next = rows + 1
        for _ in range(BACKLOG // PAGE):
            self.ledger.record(self._page(), now_ms=NOW)

    def use(self) -> None:
        """One round: a page is found, and found again; as much is sent and held; all questions are asked."""
        page = self._page()
        self._time("record, new", PAGE, lambda: self.ledger.record(page, now_ms=NOW))
        self._time("record, known", PAGE, lambda: self.ledger.record(page, now_ms=NOW))
        self._time("versions", PAGE, lambda: self.ledger.versions([file.path for file in page]))
        for step in (SEND, HOLD):
            for _ in range(PAGE // BATCH):
                self._carry(step)
        for _ in range(5):
            self._ask(page[0].path)

    def _page(self) -> list[Found]:
        self._next += PAGE
        return [self._found(self._next - PAGE + number) for number in range(PAGE)]

    def _found(self, number: int) -> Found:
        path = b"raw/night-%05d/exposure_%08d_of_the_camera.fits" % (number // 5000, number)
        moment = (NOW + number) * 10**6
        return Found(path, Fence(number, 20_000, moment, moment))

    def _carry(self, step: Step) -> None:
        batch = self._time(
            f"claim, {step.working}",
            BATCH,
            lambda: self.ledger.claim(step, limit=BATCH, max_bytes=10**9, worker=0, now_ms=NOW, bulky=False),
        )
        assert batch is not None
        assert len(batch.entries) == BATCH
        report = Report(
            tuple(
                Done(entry.id, step.target, Checksum("sha256", os.urandom(32).hex()), entry.fence)
                if entry.checksum is None
                else Done(entry.id, step.target, None, entry.fence)
                for entry in batch.entries
            )
        )
        self._time(
            f"move, {step.target}",
            BATCH,
            lambda: self.ledger.finish(batch, report, backoff=lambda _: None, now_ms=NOW),
        )

    def _ask(self, path: bytes) -> None:
        row = ManagerRow(1, "here", "1", NOW, NOW)
        questions: dict[str, Callable[[], object]] = {
            "totals": self.reader.totals,
            "waits": self.reader.waits,
            "rates": lambda: self.reader.rates("delivered", now_ms=NOW),
            "failures": self.reader.failures,
            "carrying": self.reader.carrying,
            "manager": self.reader.manager,
            "history of a path": lambda: self.reader.history(path),
            "next due": lambda: self.ledger.next_due(SEND),
            "beat": lambda: self.ledger.beat(row),
            "progress": lambda: self.ledger.progress(1, phase="send", progress_bytes=1),
        }
        for name, ask in questions.items():
            began = self._clock()
            ask()
            self.per_query[name].append(self._clock() - began)

    def _time(self, name: str, files: int, verb: Callable[[], Answer]) -> Answer:
        began = self._clock()
        answer = verb()
        self.per_file[name].append((self._clock() - began) / files)
        return answer

    def close(self) -> None:
        self.reader.close()
        self.ledger.close()


def table(title: str, benches: Sequence[Bench], times: Callable[[Bench], dict[str, list[float]]]) -> str:
    """Medians in microseconds, and their ratio to those of the first bench."""
    lines = [
        f"| {title} | " + " | ".join(f"{bench.rows:,} rows" for bench in benches) + " |",
        "|---" * (len(benches) + 1) + "|",
    ]
    medians = [
        {name: statistics.median(values) * 1e6 for name, values in times(bench).items()} for bench in benches
    ]
    if WAY[0] in medians[0]:
        for these in medians:
            these["the whole way"] = sum(these[name] for name in WAY)
    for name, first in medians[0].items():
        cells = [f"{these[name]:.1f} ({these[name] / first:.2f})" for these in medians]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--rows", type=int, nargs="*", default=[0, 100_000, 1_000_000, 5_000_000], help="sizes of ledgers"
    )
    parser.add_argument("--rounds", type=int, default=60, help="of 1,000 files each")
    parser.add_argument("--directory", type=Path, help="where they lie (default: the temporary directory)")
    parser.add_argument("--cpu", action="store_true", help="processor time, for a busy machine")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu else time.perf_counter
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        needed = sum(arguments.rows) * BYTES_PER_ROW
        free = shutil.disk_usage(name).free
        if free < 1.5 * needed:
            parser.error(f"{name} has {free / 1e9:.0f} GB free, and {needed / 1e9:.0f} GB are needed")
        say(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}")
        say(f"SQLite {sqlite3.sqlite_version}, Python {platform.python_version()}\n")
        benches = [Bench(Path(name), rows, clock) for rows in arguments.rows]
        for _ in range(arguments.rounds):
            for bench in benches:
                bench.use()
        say("\nMedians in microseconds, and their ratio to those of the first column.\n")
        say(table("µs per file", benches, lambda bench: bench.per_file))
        say("")
        say(table("µs per query", benches, lambda bench: bench.per_query))
        for bench in benches:
            bench.close()


if __name__ == "__main__":
    main()
