"""Children of a manager that died: they are found by a mark in their environment, and ended."""

import os
import time
from collections.abc import Iterator

import psutil

from common.errors import DbbError
from common.runtime import MARK


def end_orphans(mark: str, patience: float = 10.0) -> int:
    """Kill every process that a manager before this one left, by its mark, and wait until it is gone.

    Death signals end nearly all of them before; this is for those that escaped (a grandchild whose
    network hangs). Returns how many there were.

    Raises
    ------
    DbbError
        One of them does not die (it hangs in the kernel, on a dead network filesystem for instance).
    """
    left = _marked(mark)
    found = len(left)
    deadline = time.monotonic() + patience
    while left:
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in left)
            raise DbbError(
                f"processes of the manager before this one do not die: {pids}",
                "they hang in the kernel, often on a dead network filesystem: mend that, then start again",
            )
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=0.2)
        left = _marked(mark)
    return found


def marks() -> frozenset[str]:
    """The marks that living processes carry, as far as this user may see."""
    return frozenset(mark for _, mark in _living())


def _marked(mark: str) -> list[psutil.Process]:
    """The living processes with that mark, except this one."""
    return [process for process, carried in _living() if carried == mark and process.pid != os.getpid()]


def _living() -> Iterator[tuple[psutil.Process, str]]:
    """The processes that carry a mark, and what it says."""
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARK)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if mark:
            yield process, mark
