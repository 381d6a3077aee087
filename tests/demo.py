"""The demo: a night of images carried from one site to a catalogue at another, with a kill in the middle.

Run by ``bash env.bash demo``. It is the instrument, cron and the fate that kills: it writes images
into the handoff buffer while a loop starts both managers every few seconds as cron would, kills the
handoff manager once with SIGKILL while files are on their way, and in the end compares every file's
digest, in holding and in the endpoint's storage, with that of the image as it was made, and asks the
catalogue for them.
"""

import argparse
import hashlib
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path

import psutil

from common.process import Background
from tests.archive import Archive
from tests.fits import Image, night
from tests.loopback import REPOSITORY, Sites, Sshd
from tests.proof import tell
from tests.stage import Night, Stage, say, status

_MARK = "DBB_DEMO"
"""An environment variable that every process of a demo has, by which it is found and ended."""
_CRON_SECONDS = 3
_PATIENCE = 45.0
"""Seconds within which every file has to be in holding once the last was written."""


class DemoError(Exception):
    """What was to be shown did not happen."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 only if every file arrived intact and was held."""
    parser = argparse.ArgumentParser(prog="bash env.bash demo", description=__doc__)
    parser.add_argument("--exposures", type=int, default=5)
    parser.add_argument("--detectors", type=int, default=8)
    parser.add_argument("--pixels", type=int, default=400, help="a side of an image")
    parser.add_argument(
        "--butler", action="store_true", help="ingest into a Rubin Butler repository instead of SQLite"
    )
    parser.add_argument("--sweep", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.sweep:
        return _sweep(options.sweep)
    images = night(exposures=options.exposures, detectors=options.detectors, pixels=options.pixels)
    # So slow that there is something to see, and to kill: an exposure takes a second or more.
    bandwidth = 2 * options.detectors * options.pixels**2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    directory = Path(tempfile.mkdtemp(prefix="dbb-demo-"))
    try:
        with _swept(directory), Sshd(directory / "sshd") as sshd:
            sites, archive = Sites(directory, sshd), Archive(directory / "endpoint")
            stage = Stage(sites, archive, "butler" if options.butler else "sqlite")
            happened = _play(stage, images, options.exposures, bandwidth)
            return tell(stage, happened)
    except KeyboardInterrupt:
        say(f"\nInterrupted. What there is lies in {directory}")
        return 130
    except DemoError as error:
        say(f"\nThe demo failed: {error}\nWhat there is lies in {directory}")
        return 1


def _play(stage: Stage, images: Iterator[Image], exposures: int, bandwidth: int) -> Night:
    sites = stage.sites
    _configure(stage, bandwidth)
    happened = Night()
    say(f"Two sites below {sites.directory}, joined by an sshd on port {sites.sshd.port}")
    with _cron(stage), Display(stage) as display:
        for number, group in enumerate(groupby(images, key=lambda image: Path(image.path).parent), start=1):
            for image in group[1]:
                _expose(sites.buffer, image, happened)
                display.renew(happened)
            if number == exposures // 2:
                _kill(stage, happened, display)
            _rest(1.5, display, happened)
        display.turn_to("endpoint")
        deadline = time.monotonic() + _PATIENCE
        while not _is_over(stage, happened) and time.monotonic() < deadline:
            _rest(0.5, display, happened)
        display.renew(happened, at_once=True)
        happened.resumed_by = status(stage.sites).pid
    return happened


def _configure(stage: Stage, bandwidth: int) -> None:
    sites, archive = stage.sites, stage.archive
    sites.write_config(
        general={
            "settle": "0.5s",
            "pause": "1s",
            # An equal share of the bandwidth for each worker, and few files at once, so that all have some.
            "num_threads": 4,
            "chunk_size": 3,
            "bandwidth": bandwidth,
        },
        logging={"file": str(sites.directory / "handoff" / "hdfmgr.log")},
    )
    butler = {"catalogue": "butler", "config": {"repo": str(stage.repository)}}
    archive.write_config(
        **({"ingester": butler} if stage.catalogue == "butler" else {}),
        logging={"file": str(archive.directory / "endmgr.log")},
    )


def _is_over(stage: Stage, happened: Night) -> bool:
    """Whether everything that was written is in holding, and in the catalogue."""
    held, ingested = status(stage.sites).files["held"], status(stage.archive).files["ingested"]
    return min(held, ingested) >= len(happened.digests)


def _expose(buffer: Path, image: Image, happened: Night) -> None:
    """Write an image as instruments do: in one go, slowly, or under another name until it is complete."""
    path = buffer / image.path
    path.parent.mkdir(parents=True, exist_ok=True)
    way = ("at once", "slowly", "renamed")[len(happened.digests) % 3]
    part = path.with_name(f"{path.name}.tmp") if way == "renamed" else path
    with part.open("wb", buffering=0) as file:
        step = -(-len(image.content) // 8)
        for start in range(0, len(image.content), step):
            file.write(image.content[start : start + step])
            time.sleep(0.05 if way == "slowly" else 0)
    if part != path:
        part.rename(path)
    happened.digests[os.fsencode(image.path)] = hashlib.sha256(image.content).hexdigest()
    happened.size += len(image.content)


def _kill(stage: Stage, happened: Night, display: "Display") -> None:
    """SIGKILL the handoff manager as soon as it has something in flight."""
    deadline = time.monotonic() + 10
    while (found := status(stage.sites)).pid is None or not found.files["sending"]:
        if time.monotonic() > deadline:
            raise DemoError("the manager has nothing in flight")
        time.sleep(0.01)
    os.kill(found.pid, signal.SIGKILL)
    happened.killed = found.pid
    display.interject(
        f"SIGKILL to the handoff manager, {found.pid}: {found.files['sending']} files on their way, "
        f"{found.delivered} delivered. Cron starts another."
    )


@contextmanager
def _cron(stage: Stage) -> Iterator[None]:
    """What a crontab does: start the managers again and again; in the end the last ones are stopped."""
    starts = "; ".join(
        shlex.join([sys.executable, "-m", package, "start", "--daemon", "--quiet", str(config)])
        for package, config in stage.managers
    )
    loop = f"while :; do {starts}; sleep {_CRON_SECONDS}; done"
    with Background(["sh", "-c", loop], cwd=REPOSITORY, output=stage.sites.output):
        deadline = time.monotonic() + 30
        while status(stage.sites).pid is None or status(stage.archive).pid is None:
            if time.monotonic() > deadline:
                raise DemoError(f"a manager does not start: {stage.sites.output.read_text()}")
            time.sleep(0.1)
        yield
    for managed in (stage.sites, stage.archive):
        managed.command("stop", managed.config, "--timeout", "10")


@contextmanager
def _swept(directory: Path) -> Iterator[None]:
    """End every process that was started within, however this one ends.

    A manager in the background is nobody's child; what finds it is a process beside this one, which
    begins when it is told to or when the kernel tells it that this one has died.
    """
    os.environ[_MARK] = str(directory)
    argv = [sys.executable, "-m", "tests.demo", "--sweep", str(directory)]
    sweeper = Background(argv, cwd=REPOSITORY, death_signal=signal.SIGTERM)
    try:
        yield
    finally:
        sweeper.close(grace=10)


def _sweep(mark: str) -> int:
    """Wait for SIGTERM, then kill until no process with this mark is left but this one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.sigwait({signal.SIGTERM})
    while marked := [process for process in psutil.process_iter() if _has_mark(process, mark)]:
        for process in marked:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(marked, timeout=0.2)
    return 0


def _has_mark(process: psutil.Process, mark: str) -> bool:
    with suppress(psutil.Error):
        return process.pid != os.getpid() and process.environ().get(_MARK) == mark
    return False


class Display:
    """What there is to see meanwhile: the live status table on a terminal, else a line now and then."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._shown = "handoff"
        self._table: Background | None = None
        self._next_line = 0.0
        self._began = time.monotonic()

    def __enter__(self) -> "Display":
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        if self._table:
            time.sleep(1.5)  # for a last look, when all is done
        self._close()

    def renew(self, happened: Night, *, at_once: bool = False) -> None:
        """Say how far it is, where no table does."""
        now = time.monotonic()
        if self._table or (now < self._next_line and not at_once):
            return
        self._next_line = now + 3
        here, there = status(self._stage.sites), status(self._stage.archive)
        say(
            f"{now - self._began:5.1f} s  written {len(happened.digests):3}, delivered {here.delivered:3}, "
            f"held {here.files['held']:3}, ingested {there.files['ingested']:3}; "
            f"managers {here.pid or 'not running'}, {there.pid or 'not running'}"
        )

    def interject(self, line: str) -> None:
        """Say something between two tables."""
        self._close()
        say(line)
        self._open()

    def turn_to(self, package: str) -> None:
        """Show the table of the other manager from here on."""
        self._close()
        self._shown = package
        self._open()

    def _open(self) -> None:
        if sys.stdout.isatty():
            config = dict(self._stage.managers)[self._shown]
            argv = [sys.executable, "-m", self._shown, "status", "--watch", str(config)]
            self._table = Background(argv, cwd=REPOSITORY)

    def _close(self) -> None:
        if self._table:
            self._table.close()
            self._table = None
            say("\x1b[?25h")  # should the table have gone without giving the cursor back


def _rest(seconds: float, display: Display, happened: Night) -> None:
    display.renew(happened)
    time.sleep(seconds)


if __name__ == "__main__":
    sys.exit(main())
