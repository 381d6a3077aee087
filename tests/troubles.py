"""What tests of a manager in trouble ask and do: small disks, one file's story, what `status` tells."""

import ctypes
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from common.process import run
from tests.loopback import Sites
from tests.runs import Managed, Run, rows

_NEW_MOUNTS, _RECURSIVE, _PRIVATE = 0x20000, 0x4000, 0x40000

STRAIGHT = ["found", "sending", "delivered", "holding", "held"]
"""The story of a file that nothing befell."""


def carry_all(sites: Sites, *options: str) -> int:
    """Run a manager until nothing is left that it can do; gives its exit code."""
    return sites.command("start", sites.config, "--once", *options).exit_code


def story(sites: Managed, path: bytes) -> list[list[str]]:
    """The states that each version of a path has gone through, the oldest version first."""
    query = """
        SELECT file_id, target FROM history
        WHERE file_id IN (SELECT id FROM files WHERE path = ?) ORDER BY file_id, seq
    """
    stories: dict[int, list[str]] = {}
    for entry, state in rows(sites, query, path):
        stories.setdefault(entry, []).append(state)
    return list(stories.values())


def attempts(sites: Sites) -> int:
    """The most failures of its own that any file has been charged with, now or before."""
    [(now,)] = rows(sites, "SELECT ifnull(max(attempts), 0) FROM files")
    [(before,)] = rows(sites, "SELECT count(*) FROM history WHERE target = 'failed'")
    return int(now or before)


def status(sites: Sites) -> Any:
    """What `status --json` tells."""
    return json.loads(sites.command("status", sites.config, "--json").stdout)


def endpoint_state(sites: Sites) -> str:
    """What the manager thinks of the endpoint: ``unknown`` until it has looked there for the first time."""
    return next((state for (state,) in rows(sites, "SELECT endpoint_state FROM manager")), "unknown")


def send_signal(manager: Run, number: signal.Signals) -> None:
    """To the manager alone, none of its children."""
    with suppress(ProcessLookupError):
        os.kill(manager.process.pid, number)


def assert_stops(manager: Run) -> None:
    """SIGTERM brings it to a good end, and does not wait for what hangs: that would take longer by far."""
    assert manager.stop(30) == 0, manager.said


def own_mounts() -> bool:
    """Keep what is mounted from here on to this process and its children; false where that is forbidden.

    So it is gone with them, however they end.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return not libc.unshare(_NEW_MOUNTS) and not libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None)


@contextmanager
def disk(directory: Path, options: str) -> Iterator[Path]:
    """A small filesystem in memory, mounted there, such as ``size=8m``; it goes at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    mount(directory, "-t", "tmpfs", "-o", options, "tmpfs")
    try:
        yield directory
    finally:
        unmount(directory)


def mount(directory: Path, *arguments: str) -> None:
    """As `mount` does it."""
    done = run(["mount", *arguments, str(directory)])
    assert done.exit_code == 0, done.stderr


def unmount(directory: Path) -> None:
    """Take a mount away, whoever still uses it."""
    done = run(["umount", "--lazy", str(directory)])
    assert done.exit_code == 0, done.stderr


def fill(directory: Path, *, leave: int = 0) -> Path:
    """Write a file that takes all the room of a disk but `leave` bytes; what to remove to get it back."""
    room = os.statvfs(directory)
    ballast = directory / ".ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
    os.posix_fallocate(descriptor, 0, room.f_bavail * room.f_frsize - leave)
    os.close(descriptor)
    return ballast
