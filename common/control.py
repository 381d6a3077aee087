"""Starting a manager in the background and stopping the one that runs."""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import DbbError, LedgerError

_GRACE = 15.0
"""Seconds that a manager has to give up what is in flight once it has been told to."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a manager came to its end."""

    how: Literal["not running", "finished", "gave up", "still running"]
    """`gave up`: it was told to leave what was in flight, which the next start resumes."""
    pid: int | None = None
    seconds: float = 0.0


def stop(holder: Callable[[], int | None], timeout: float, *, grace: float = _GRACE) -> Stopped:
    """Ask the process that holds a ledger to finish what is in flight, and wait for its end.

    After `timeout` seconds it is told to give that up. Only the holder of the lock is ever
    signalled: the signal goes to a descriptor of the process, which is taken before the lock is
    looked at again, so that it can't reach another process that got the same number.

    Raises
    ------
    DbbError
        The holder belongs to another user, or runs in another container or on another host.
    """
    started = time.monotonic()
    pid = holder()
    if pid is None:
        return Stopped("not running")
    if pid <= 0:
        # The kernel can't name a process of another container or, on a network filesystem, host.
        raise DbbError(
            "the manager that holds this ledger runs in another container or on another host",
            "stop it there",
        )
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return Stopped("finished", pid, time.monotonic() - started)
    demands: tuple[tuple[signal.Signals, float, Literal["finished", "gave up"]], ...] = (
        (signal.SIGUSR1, timeout, "finished"),
        (signal.SIGTERM, grace, "gave up"),
    )
    try:
        for number, patience, how in demands:
            if holder() == pid:
                _signal(process, number, pid)
            if _gone(holder, pid, patience):
                return Stopped(how, pid, time.monotonic() - started)
    finally:
        os.close(process)
    return Stopped("still running", pid, time.monotonic() - started)


def _signal(process: int, number: signal.Signals, pid: int) -> None:
    try:
        signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise DbbError(
            f"the manager (pid {pid}) belongs to another user", "run this command as that user"
        ) from error


def _gone(holder: Callable[[], int | None], pid: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while holder() == pid:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


@dataclass(frozen=True, slots=True)
class Launched:
    """What became of a manager that was sent into the background, for the exit of this process."""

    exit_code: int
    message: str = ""
    """Why it did not come up."""
    hint: str = ""
    pid: int | None = None
    """The process in the background, once it is up, where this is the one in the foreground."""


def detach(serve: Callable[[Callable[[], None]], int], errors: Path) -> Launched:
    """Run `serve` in a process of its own session, and return once it has called its `ready`.

    It returns in both processes: in the first when the other is up or has failed to come up, in
    the other when `serve` has ended. The process in the background has no controlling terminal and
    can't get one; its standard input and output are nowhere, its standard error is the file
    `errors`.

    Raises
    ------
    LedgerError
        That file, which is beside the ledger as a rule, can't be had.
    """
    log = _opened(errors)
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(log)
        os.close(writer)
        os.waitpid(child, 0)
        with open(reader, "rb") as pipe:
            return _verdict(pipe.read(), errors)
    os.close(reader)
    os.setsid()
    if os.fork():
        # Not the leader of its session, the manager can't be given a terminal when it opens one.
        os._exit(0)
    _redirect(log)
    return _background(serve, writer, errors)


def _background(serve: Callable[[Callable[[], None]], int], writer: int, errors: Path) -> Launched:
    told = False

    def tell(launched: Launched) -> None:
        nonlocal told
        if not told:
            told = True
            with suppress(BrokenPipeError):
                os.write(
                    writer,
                    json.dumps([launched.exit_code, launched.message, launched.hint, launched.pid]).encode(),
                )
            os.close(writer)

    try:
        code = serve(lambda: tell(Launched(0, pid=os.getpid())))
        tell(Launched(code))
        return Launched(code)
    except DbbError as error:
        tell(Launched(error.exit_code, error.message, error.hint))
        raise
    except BaseException:
        traceback.print_exc()
        tell(Launched(1, "it ended unexpectedly while coming up", f"its last words are in {errors}"))
        raise


def _opened(errors: Path) -> int:
    try:
        errors.parent.mkdir(parents=True, exist_ok=True)
        return os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise LedgerError(
            f"{errors}: what a manager in the background says can't be written there: {error.strerror}",
            "It is beside the ledger, in a directory where the user must have the right to write;"
            " or name another place in database.engine.",
        ) from error


def _redirect(log: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for source, target in ((nowhere, 0), (nowhere, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nowhere)
    os.close(log)


def _verdict(told: bytes, errors: Path) -> Launched:
    if not told:
        return Launched(1, "it was killed while coming up", f"its last words are in {errors}")
    return Launched(*json.loads(told))
