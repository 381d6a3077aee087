"""The endpoint manager beside plain programs for the same work: ``python -m bench.endpoint``.

Files that lie in the buffer are verified, stored and ingested by ``endmgr start --once``; its time holds
all that it does, start and end included. Beside it, in the same run, the plainest programs that a user
would write: one that hashes and moves, one that also writes a row a file, and a plain loop of the recipe
for a Butler. None of them survives a kill, checks what it placed, or knows what it did.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.files import Checksum, Fence
from common.ledger.ledger import Ledger
from common.ledger.rows import Found
from endpoint.lifecycle import LIFECYCLE
from tests.archive import Archive
from tests.fits import night

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """Files to take in."""

    catalogue: str
    files: int
    pixels: int
    """A side of an image of 16 bits a pixel."""
    wanted: float
    """Files a second."""


LOADS = {
    "null": Load("null", 4000, 70, 2000),
    "sqlite": Load("sqlite", 2000, 70, 500),
    "butler": Load("butler", 600, 70, 80),
    "large": Load("null", 40, 4180, 0),
}


class Arena:
    """Where trees of images are made once, and taken in again and again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._runs = 0

    def source(self, load: Load) -> Path:
        """A night of images, with two detectors an exposure, in the page cache and on the disk."""
        root = self._directory / f"source-{load.files}-{load.pixels}"
        if not root.exists():
            for image in night(exposures=load.files // 2, detectors=2, pixels=load.pixels):
                path = root / image.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image.content)
            os.sync()
        return root

    @contextmanager
    def filled(self, load: Load) -> Iterator[Archive]:
        """An endpoint site with the tree in its buffer, by hard links."""
        self._runs += 1
        archive = Archive(self._directory / f"run-{self._runs}")
        shutil.rmtree(archive.buffer)
        shutil.copytree(self.source(load), archive.buffer, copy_function=os.link)
        os.sync()
        try:
            yield archive
        finally:
            shutil.rmtree(archive.directory)

    def manager(self, load: Load) -> float:
        """`endmgr start --once`; the seconds of the whole process."""
        with self.filled(load) as archive:
            configure(archive, load.catalogue)
            began = time.perf_counter()
            done = archive.command("start", archive.config, "--once", "--quiet", timeout=1200)
            seconds = time.perf_counter() - began
            assert done.exit_code == 0, done.stderr.decode()
            assert sum(len(names) for _, _, names in os.walk(archive.storage)) == load.files
        return seconds

    def plain(self, load: Load) -> float:
        """The plain program for the same, in a process of its own."""
        with self.filled(load) as archive:
            argv = [sys.executable, "-m", "bench.endpoint", "--plain", load.catalogue, str(archive.directory)]
            began = time.perf_counter()
            subprocess.run(argv, check=True, cwd=Path(__file__).parents[1])
            return time.perf_counter() - began


def configure(archive: Archive, catalogue: str, **general: object) -> None:
    """A configuration as a user would leave it, but for the wait for files to settle."""
    ingester: dict[str, object] = {}
    if catalogue == "butler":
        ingester = {"catalogue": catalogue, "config": {"repo": str(archive.directory / "repo")}}
    elif catalogue == "null":
        ingester = {"catalogue": catalogue}
    archive.write_config(ingester=ingester, general=general)


def plainly(catalogue: str, archive: Archive) -> None:
    """Hash and move every file; then tell the catalogue."""
    moved = []
    for parent, _, names in os.walk(archive.buffer):
        target = archive.storage / os.path.relpath(parent, archive.buffer)
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            with open(os.path.join(parent, name), "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.rename(os.path.join(parent, name), target / name)
            moved.append((target / name, digest))
    if catalogue == "sqlite":
        _insert_plainly(archive, moved)
    elif catalogue == "butler":
        from bench.recipe import ingest

        ingest(archive.directory / "repo", [path for path, _ in moved])


def _insert_plainly(archive: Archive, moved: Sequence[tuple[Path, str]]) -> None:
    """A row with all cards of its headers for each file, 20 in a transaction."""
    from astropy.io import fits

    with closing(sqlite3.connect(archive.catalogue, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE files (path TEXT PRIMARY KEY, digest TEXT, header TEXT)")
        for start in range(0, len(moved), 20):
            connection.execute("BEGIN")
            for path, digest in moved[start : start + 20]:
                cards = dict(fits.getheader(path, 0)) | dict(fits.getheader(path, 1))
                row = (str(path), digest, json.dumps(cards, default=str))
                connection.execute("INSERT INTO files VALUES (?, ?, ?)", row)
            connection.execute("COMMIT")


def throughput(arena: Arena, name: str, runs: int) -> str:
    """Both in turn, after one round that does not count."""
    load = LOADS[name]
    seconds: dict[str, list[float]] = {"manager": [], "plain": []}
    ways: dict[str, Callable[[Load], float]] = {"manager": arena.manager, "plain": arena.plain}
    for turn in range(runs + 1):
        for way, function in ways.items():
            took = function(load)
            if turn:
                seconds[way].append(took)
    size = sum(path.stat().st_size for path in arena.source(load).rglob("*.fits"))
    ours, theirs = (statistics.median(seconds[way]) for way in ("manager", "plain"))
    wanted = f"{load.wanted:,.0f}" if load.wanted else ""
    return (
        f"| {name} | {load.files:,} of {size // load.files:,} B | {ours:.2f} | {load.files / ours:,.0f} "
        f"| {size / ours / MB:,.0f} | {wanted} | {theirs:.2f} | {ours / theirs:.2f} |"
    )


def latency(arena: Arena, files: int = 20) -> str:
    """One file a second: from its name in the buffer to its row, seen by a query."""
    images = list(night(exposures=files, detectors=1, pixels=70))
    with tempfile.TemporaryDirectory(prefix="dbb-bench-") as directory:
        archive = Archive(Path(directory) / "archive")
        configure(archive, "sqlite")
        manager = archive.start("start", archive.config, "--quiet")
        try:
            seconds = [_appearance(archive, image.path, image.content) for image in images]
        finally:
            manager.close(10)
    # The first one has waited for the catalogue to start.
    return (
        f"| from the buffer to a row, one file a second | median {statistics.median(seconds):.3f} s "
        f"| max {max(seconds[1:]):.3f} s | first {seconds[0]:.2f} s | aim 0.5 |"
    )


def _appearance(archive: Archive, path: str, content: bytes) -> float:
    target = archive.buffer / path
    target.parent.mkdir(parents=True, exist_ok=True)
    part = archive.staging / "part"
    part.write_bytes(content)
    began = time.perf_counter()
    part.rename(target)
    name = os.fsencode(path)
    while name not in archive.catalogued():
        time.sleep(0.002)
        assert time.perf_counter() < began + 60, f"{path} does not appear"
    took = time.perf_counter() - began
    time.sleep(max(0.0, 1.0 - took))
    return took


def history(arena: Arena, rows: int = 1_000_000) -> str:
    """Processor time a file, beside an empty ledger and beside one with so many rows."""
    load = LOADS["null"]
    costs = [_cost(arena, load, count) for count in (0, rows)]
    return (
        f"| processor time, to `null` | {costs[0]:.0f} µs at none | {costs[1]:.0f} µs at {rows:,} rows "
        f"| ratio {costs[1] / costs[0]:.2f} | aim 1.1 |"
    )


def _cost(arena: Arena, load: Load, known: int) -> float:
    """Microseconds of all our processes a file."""
    with arena.filled(load) as archive:
        configure(archive, load.catalogue)
        with Ledger.open(archive.ledger, LIFECYCLE) as ledger:
            for start in range(0, known, 10_000):
                page = [_known(number) for number in range(start, start + 10_000)]
                ledger.backfill("backfilled", page, now_ms=1)
        before = os.times()
        assert archive.once("--quiet") == 0
        after = os.times()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return spent / load.files * 1e6


def _known(number: int) -> Found:
    digest = hashlib.sha256(number.to_bytes(8)).hexdigest()
    path = b"20250101/%08d/DECam_%08d_c01.fits" % (number // 62, number)
    return Found(path, Fence(number, 20_000, number, number), Checksum("sha256", digest))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loads", nargs="*", default=[*LOADS, "latency", "history"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--plain", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        plainly(options.plain[0], Archive(Path(options.plain[1])))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}\n")
    print("| load | files | manager s | files/s | MB/s | aim files/s | plain program s | manager to plain |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="dbb-bench-") as directory:
        arena = Arena(Path(directory))
        for name in (name for name in options.loads if name in LOADS):
            print(throughput(arena, name, options.runs), flush=True)
        print("\n| | | | | |\n|---|---|---|---|---|")
        for name, measure in (("latency", latency), ("history", history)):
            if name in options.loads:
                print(measure(arena), flush=True)


if __name__ == "__main__":
    main()
