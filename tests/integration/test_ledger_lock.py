"""The lock that only one manager can have, and that dies with it."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from common.errors import LedgerError
from common.ledger.lock import LedgerHeld, ManagerLock, holder, lock_path
from tests.apart import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, apart, give_up


def hold(ledger: Path, line: Connection) -> None:
    with ManagerLock(ledger):
        line.send("held")
        time.sleep(600)


@contextmanager
def another_manager(ledger: Path) -> Iterator[SpawnProcess]:
    """A process that has the lock."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(ledger, theirs))
    process.start()
    theirs.close()
    try:
        assert ours.recv() == "held"
        yield process
    finally:
        process.kill()
        process.join()
        ours.close()


def acquire(ledger: Path) -> str:
    try:
        with ManagerLock(ledger):
            return "taken"
    except LedgerHeld as held:
        return f"{held.pid} {held.exit_code}"


def test_nobody_holds_a_ledger_that_is_not_there(tmp_path: Path) -> None:
    assert holder(tmp_path / "handoff.db") is None
    assert list(tmp_path.iterdir()) == []


def test_a_second_manager_is_told_who_has_it_and_ends_well(tmp_path: Path) -> None:
    ledger = tmp_path / "handoff.db"
    with another_manager(ledger) as other:
        with pytest.raises(LedgerHeld, match=f"process {other.pid}") as caught:
            ManagerLock(ledger).acquire()
        assert (caught.value.pid, caught.value.exit_code) == (other.pid, 0)
        assert holder(ledger) == other.pid


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    ledger = tmp_path / "handoff.db"
    with another_manager(ledger) as other:
        other.kill()
        other.join()
        assert lock_path(ledger).exists()
        assert holder(ledger) is None
        with ManagerLock(ledger):
            assert holder(ledger) == os.getpid()


def test_asking_for_the_holder_does_not_cost_it_its_lock(tmp_path: Path) -> None:
    ledger = tmp_path / "handoff.db"
    with ManagerLock(ledger):
        assert holder(ledger) == os.getpid()
        assert apart(holder, ledger) == os.getpid()
        assert apart(acquire, ledger) == f"{os.getpid()} 0"
    assert apart(acquire, ledger) == "taken"


def test_a_failed_attempt_leaves_nothing_open(tmp_path: Path) -> None:
    ledger = tmp_path / "handoff.db"
    with another_manager(ledger):
        for _ in range(3):
            with pytest.raises(LedgerHeld):
                ManagerLock(ledger).acquire()
        assert open_below(tmp_path) == []
    with ManagerLock(ledger):
        assert open_below(tmp_path) != []
    assert open_below(tmp_path) == []


def open_below(directory: Path) -> list[Path]:
    """The files in a directory that this process has open."""
    opened = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # of the listing itself
            opened.append(link.readlink())
    return [path for path in opened if directory in path.parents]


def test_a_lock_can_be_taken_given_back_and_taken_again(tmp_path: Path) -> None:
    lock = ManagerLock(tmp_path / "new" / "handoff.db")
    for _ in range(2):
        with lock:
            assert holder(tmp_path / "new" / "handoff.db") == os.getpid()
        assert holder(tmp_path / "new" / "handoff.db") is None
    lock.release()


def release_beside_a_child(ledger: Path) -> int | None:
    """Who holds the ledger after this process has given it back and its child, forked before, lives on."""
    lock = ManagerLock(ledger)
    lock.acquire()
    child = os.fork()
    if child == 0:
        time.sleep(600)
    try:
        lock.release()
        return holder(ledger)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_children_do_not_inherit_it(tmp_path: Path) -> None:
    assert apart(release_beside_a_child, tmp_path / "handoff.db") is None


def use_without_rights(ledger: Path) -> tuple[str, str]:
    give_up(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)
    lock_path(ledger).chmod(0)
    with pytest.raises(LedgerError, match="lock can't be used: Permission denied") as taking:
        ManagerLock(ledger).acquire()
    with pytest.raises(LedgerError, match="lock can't be used: Permission denied") as asking:
        holder(ledger)
    return taking.value.hint, asking.value.hint


def test_a_lock_of_another_user_is_told(tmp_path: Path) -> None:
    ledger = tmp_path / "handoff.db"
    with ManagerLock(ledger):
        pass
    hints = apart(use_without_rights, ledger)
    assert all("another user's" in hint for hint in hints)


def sqlite_is_loaded() -> bool:
    return "sqlite3" in sys.modules


def test_the_lock_does_without_the_database() -> None:
    assert apart(sqlite_is_loaded) is False
