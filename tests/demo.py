"""The demo: a night of images carried from one site to another on this machine, with a kill in the middle.

Run by ``bash env.bash demo``. It is the instrument, cron and the fate that kills: it writes images
into the handoff buffer while a loop starts the manager every few seconds as cron would, kills the
manager once with SIGKILL while files are on their way, and in the end compares every file's digest
at both ends with that of the image as it was made.
"""

import argparse
import hashlib
import os
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import psutil

from common.errors import LedgerError
from common.ledger.lock import holder
from common.ledger.reader import LedgerReader
from common.process import Background
from tests.fits import Image, night
from tests.loopback import REPOSITORY, Sites, Sshd

_MARK = "DBB_DEMO"
"""An environment variable that every process of a demo has, by which it is found and ended."""
_CRON_SECONDS = 3
_PATIENCE = 45.0
"""Seconds within which every file has to be in holding once the last was written."""


class DemoError(Exception):
    """What was to be shown did not happen."""


@dataclass(frozen=True, slots=True)
class Status:
    """The manager that runs, if one does, and the number of files in each state."""

    pid: int | None
    files: Counter[str]

    @property
    def delivered(self) -> int:
        return sum(self.files[state] for state in ("delivered", "holding", "held"))


@dataclass(slots=True)
class Night:
    """What happened: what the instrument wrote, and what became of the manager."""

    digests: dict[bytes, str] = field(default_factory=dict)
    """Of each image as it was made, by its path below the buffer."""
    size: int = 0
    killed: int | None = None
    """The process that was killed."""
    resumed_by: int | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 only if every file arrived intact and was held."""
    parser = argparse.ArgumentParser(prog="bash env.bash demo", description=__doc__)
    parser.add_argument("--exposures", type=int, default=5)
    parser.add_argument("--detectors", type=int, default=8)
    parser.add_argument("--pixels", type=int, default=400, help="a side of an image")
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
            sites = Sites(directory, sshd)
            happened = _play(sites, images, options.exposures, bandwidth)
            return _tell(sites, happened)
    except KeyboardInterrupt:
        _say(f"\nInterrupted. What there is lies in {directory}")
        return 130
    except DemoError as error:
        _say(f"\nThe demo failed: {error}\nWhat there is lies in {directory}")
        return 1


def _play(sites: Sites, images: Iterator[Image], exposures: int, bandwidth: int) -> Night:
    config = sites.write_config(
        general={"settle": "0.5s", "pause": "1s", "num_threads": 4, "bandwidth": bandwidth},
        logging={"file": str(sites.directory / "handoff" / "hdfmgr.log")},
    )
    happened = Night()
    _say(f"Two sites below {sites.directory}, joined by an sshd on port {sites.sshd.port}")
    with _cron(sites, config), Display(sites) as display:
        for number, group in enumerate(groupby(images, key=lambda image: Path(image.path).parent), start=1):
            for image in group[1]:
                _expose(sites.buffer, image, happened)
                display.renew(happened)
            if number == exposures // 2:
                _kill(sites, happened, display)
            _rest(1.5, display, happened)
        deadline = time.monotonic() + _PATIENCE
        while _status(sites).files["held"] < len(happened.digests) and time.monotonic() < deadline:
            _rest(0.5, display, happened)
        display.renew(happened, at_once=True)
        happened.resumed_by = _status(sites).pid
    return happened


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


def _kill(sites: Sites, happened: Night, display: "Display") -> None:
    """SIGKILL the manager as soon as it has something in flight."""
    deadline = time.monotonic() + 10
    while (status := _status(sites)).pid is None or not status.files["sending"]:
        if time.monotonic() > deadline:
            raise DemoError("the manager has nothing in flight")
        time.sleep(0.01)
    os.kill(status.pid, signal.SIGKILL)
    happened.killed = status.pid
    display.interject(
        f"SIGKILL to the manager, {status.pid}: {status.files['sending']} files on their way, "
        f"{status.delivered} delivered. Cron starts another."
    )


@contextmanager
def _cron(sites: Sites, config: Path) -> Iterator[None]:
    """What a crontab does: start the manager again and again; in the end the last one is stopped."""
    start = shlex.join([sys.executable, "-m", "handoff", "start", "--daemon", "--quiet", str(config)])
    loop = f"while :; do {start}; sleep {_CRON_SECONDS}; done"
    with Background(["sh", "-c", loop], cwd=REPOSITORY, output=sites.output):
        deadline = time.monotonic() + 15
        while _status(sites).pid is None:
            if time.monotonic() > deadline:
                raise DemoError(f"the manager does not start: {sites.output.read_text()}")
            time.sleep(0.1)
        yield
    sites.command("stop", config, "--timeout", "10")


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


def _status(sites: Sites) -> Status:
    """What `hdfmgr status` would say, read from where it reads it."""
    files: Counter[str] = Counter()
    with suppress(LedgerError), LedgerReader.open(sites.ledger, manager="handoff") as reader:
        for total in reader.totals():
            files[total.state] += total.files
    return Status(holder(sites.ledger), files)


class Display:
    """What there is to see meanwhile: the live status table on a terminal, else a line now and then."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
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
        status = _status(self._sites)
        _say(
            f"{now - self._began:5.1f} s  written {len(happened.digests):3}, delivered {status.delivered:3}, "
            f"held {status.files['held']:3}; manager {status.pid or 'not running'}"
        )

    def interject(self, line: str) -> None:
        """Say something between two tables."""
        self._close()
        _say(line)
        self._open()

    def _open(self) -> None:
        if sys.stdout.isatty():
            argv = [sys.executable, "-m", "handoff", "status", "--watch", str(self._sites.config)]
            self._table = Background(argv, cwd=REPOSITORY)

    def _close(self) -> None:
        if self._table:
            self._table.close()
            self._table = None
            _say("\x1b[?25h")  # should the table have gone without giving the cursor back


def _rest(seconds: float, display: Display, happened: Night) -> None:
    display.renew(happened)
    time.sleep(seconds)


def _tell(sites: Sites, happened: Night) -> int:
    """Compare everything end to end, and say what came of it and where it lies."""
    status = _status(sites)
    arrived, held = (_digests(root) for root in (sites.endpoint_buffer, sites.holding))
    left = len(_digests(sites.buffer))
    program, config = (shlex.quote(str(path)) for path in (REPOSITORY / ".venv/bin/hdfmgr", sites.config))
    good = arrived == happened.digests == held and not left
    _say(f"""
written     {len(happened.digests)} files, {happened.size / 1e6:.1f} MB
delivered   {_same(arrived, happened)} are in the endpoint's buffer, digests compared
held        {_same(held, happened)} are in holding, digests compared; {left} left in the buffer
ledger      {", ".join(f"{count} {state}" for state, count in status.files.items() if count) or "empty"}
{_fate(happened)}
result      {"every file arrived intact, once" if good else "NOT every file arrived and is held"}

Everything lies in {sites.directory}:
  handoff/buffer, handoff/holding, endpoint/staging, endpoint/buffer
Look at it:
  {program} status {config}
  {program} history {config} {os.fsdecode(next(iter(happened.digests), b""))}
  less {sites.directory}/handoff/hdfmgr.log
Remove it:
  rm -r {sites.directory}""")
    return 0 if good else 1


def _fate(happened: Night) -> str:
    if happened.killed is None:
        return "killed      nobody: that takes two exposures"
    return (
        f"killed      manager {happened.killed}, by SIGKILL; manager {happened.resumed_by} resumed by itself"
    )


def _digests(root: Path) -> dict[bytes, str]:
    return {
        os.fsencode(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def _same(found: dict[bytes, str], happened: Night) -> str:
    same = len(found.items() & happened.digests.items())
    return f"{same} of {len(happened.digests)}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
