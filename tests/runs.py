"""Managers at work in a test: started as cron starts them, watched from outside, ended with the test."""

import hashlib
import os
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import psutil
from inotify_simple import INotify, flags  # type: ignore[import-untyped]

from common.ledger.ledger import Ledger
from common.process import Background
from common.runtime import MARK
from handoff.lifecycle import LIFECYCLE
from tests.ledgers import assert_sound
from tests.loopback import Sites, files_below

Answer = TypeVar("Answer")


class Managed(Protocol):
    """What has a manager and a ledger: `Sites`, or an `Archive`."""

    kind: str
    """Of the manager."""
    directory: Path
    """Which holds all else; its managers have their state in it."""
    ledger: Path
    config: Path

    @property
    def output(self) -> Path: ...

    def start(
        self, *args: str | Path, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> Background: ...


_NO_OVERRIDE = "-dac_override,-dac_read_search"
_POWERLESS = ("setpriv", f"--bounding-set={_NO_OVERRIDE}", f"--inh-caps={_NO_OVERRIDE}")


def eventually(look: Callable[[], Answer], *, within: float = 20.0) -> Answer:
    """What `look` gives, once that is true; a failure if it is not within so many seconds."""
    deadline = time.monotonic() + within
    while not (answer := look()):
        assert time.monotonic() < deadline, f"not within {within} s: {look}"
        time.sleep(0.02)
    return answer


class Run:
    """A manager in the foreground, as `hdfmgr start` runs it; a context manager.

    `powerless` is for root alone: the manager lacks its power over other people's permissions.
    """

    def __init__(
        self, sites: Managed, *options: str, env: Mapping[str, str] | None = None, powerless: bool = False
    ) -> None:
        self._sites = sites
        prefix = _POWERLESS if powerless and os.geteuid() == 0 else ()
        self.process = sites.start("start", sites.config, *options, env=env, prefix=prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.close(grace=10)

    @property
    def said(self) -> str:
        """What it has printed, and the managers of these sites before it."""
        return self._sites.output.read_text(errors="backslashreplace")

    def kill(self) -> None:
        """SIGKILL to the manager; each of its children leads a group of its own, and hears nothing of it."""
        self.process.kill()

    def stop(self, within: float = 10.0) -> int | None:
        """SIGTERM; gives the exit code, or None if it has not ended in time."""
        self._signal(signal.SIGTERM)
        return self.process.wait(within)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)


def rows(sites: Managed, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What is in the ledger, by a reader of one's own; nothing while there is no ledger."""
    if not sites.ledger.exists():
        return []
    with closing(sqlite3.connect(f"file:{sites.ledger}?mode=ro", uri=True, timeout=10)) as connection:
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # it is just being created
                return []
            raise


def counts(sites: Managed) -> dict[str, int]:
    """How many versions are in each state; a state without any is left out."""
    return dict(Counter(state for (state,) in rows(sites, "SELECT state FROM files")))


def states(sites: Managed, path: bytes) -> list[str]:
    """The state of each version of a path, the oldest version first."""
    return [state for (state,) in rows(sites, "SELECT state FROM files WHERE path = ? ORDER BY id", path)]


def owner(sites: Managed) -> str:
    """The id of the ledger, which names what is a manager's in /tmp and staging; empty without a ledger."""
    return next((value for (value,) in rows(sites, "SELECT value FROM meta WHERE key = 'id'")), "")


def descendants(process: Background) -> dict[str, list[psutil.Process]]:
    """The living descendants of a manager: ``worker``, ``master`` (of ssh), and others by their names."""
    found: dict[str, list[psutil.Process]] = {}
    pids = [process.pid]
    for pid in pids:
        # Much cheaper than a look at all processes, so that those that live for a moment are seen.
        with suppress(OSError, psutil.NoSuchProcess):
            pids += [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            if pid != process.pid:
                child = psutil.Process(pid)
                found.setdefault(_role(child.cmdline()), []).append(child)
    return found


def _role(argv: list[str]) -> str:
    name = os.path.basename(argv[0]) if argv else ""
    if name == "ssh" and "-M" in argv:
        return "master"
    return "worker" if name.startswith("python") else name


def children(sites: Managed) -> list[psutil.Process]:
    """Every living process that a manager of these sites has started, this one or one before."""
    state, found = str(sites.directory / "state"), []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            environment = process.environ()
            if (
                MARK in environment
                and environment.get("XDG_STATE_HOME") == state
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
    return found


def leftovers(sites: Sites) -> list[Path]:
    """What managers of these sites have left in /tmp and in the endpoint's staging; notes are to stay."""
    mark = owner(sites)
    staged = [path for path in sites.staging.rglob("*") if not path.is_dir() and path.suffix != ".jsonl"]
    batches = list(sites.staging.glob("batch-*"))
    return sorted({*Path("/tmp").glob(f"dbb-*-{mark}"), *staged, *batches})


def digests(files: Mapping[bytes, bytes]) -> dict[bytes, str]:
    """Of each content, for comparisons that can be read."""
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


def assert_delivered_once(
    sites: Sites, written: Mapping[bytes, bytes], times: Mapping[bytes, int] | None = None
) -> None:
    """Everything is where it belongs, whole, and nothing else is anywhere; the ledger says the same.

    `times` is how often each file was put into the buffer, if not once. No manager is running.
    """
    assert digests(files_below(sites.endpoint_buffer)) == digests(written)
    assert digests(files_below(sites.holding)) == digests(written)
    assert files_below(sites.buffer) == {}
    assert leftovers(sites) == []
    assert children(sites) == []
    deliveries = """
        SELECT path, count(*) FROM history JOIN files ON files.id = file_id
        WHERE source = 'sending' AND target = 'delivered' GROUP BY path
    """
    assert dict(rows(sites, deliveries)) == (times or dict.fromkeys(written, 1))
    assert rows(sites, "SELECT * FROM history WHERE target IN ('failed', 'conflict', 'vanished')") == []
    moves = set(rows(sites, "SELECT source, target FROM history WHERE source <> '' AND target <> ''"))
    assert moves <= LIFECYCLE.moves
    with Ledger.open(sites.ledger, LIFECYCLE) as ledger:
        assert_sound(ledger)


def stand_in(directory: Path, name: str, script: str) -> dict[str, str]:
    """Make a shell script that is found in the place of a program; gives the environment where it is.

    In the script, ``$real`` is the program that it stands in for, which alone answers when it is asked
    for its version.
    """
    real = shutil.which(name)
    assert real, f"{name} is not installed"
    directory.mkdir(exist_ok=True)
    program = directory / name
    version = 'case ${1-} in --version) exec "$real" "$@" ;; esac'
    program.write_text(f"#!/bin/sh\nreal={real}\n{version}\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


@contextmanager
def holding_elsewhere(sites: Sites) -> Iterator[Callable[[], bool]]:
    """Put the holding area on another filesystem; gives what waits until a copy to it has begun."""
    with TemporaryDirectory(dir="/dev/shm") as directory, INotify() as events:
        sites.holding = Path(directory)
        assert sites.holding.stat().st_dev != sites.buffer.stat().st_dev
        events.add_watch(directory, flags.CREATE)
        yield lambda: bool(events.read(timeout=20_000))
