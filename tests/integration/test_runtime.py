"""A manager's private directory is its own while it lives, and is nobody's for long after it was killed."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import DbbError
from common.orphans import marks
from common.process import Background
from common.runtime import MARK, clear, remove_forgotten, runtime_directory
from tests.loopback import REPOSITORY
from tests.runs import eventually

_HOLD = """
import sys, time
from pathlib import Path
from common.runtime import runtime_directory
with runtime_directory(sys.argv[1], Path(sys.argv[2])) as runtime:
    runtime.sign("abcd")
    (runtime.path / "socket").touch()
    time.sleep(600)
"""


def holder(root: Path, ledger_id: str) -> Background:
    """A process that has the directory of a ledger."""
    return Background([sys.executable, "-c", _HOLD, ledger_id, str(root)], cwd=REPOSITORY)


def place(root: Path, ledger_id: str) -> Path:
    return root / f"dbb-{os.getuid()}-{ledger_id}"


def left_long_ago(root: Path, ledger_id: str, mark: str = "0123") -> Path:
    """What a manager left that was killed the day before."""
    path = place(root, ledger_id)
    path.mkdir(mode=0o700)
    (path / "mark").symlink_to(mark)
    (path / "w0.1").mkdir()
    (path / "w0.1" / "link").symlink_to("/nowhere")
    age(path)
    return path


def age(path: Path) -> None:
    os.utime(path, (0, 0), follow_symlinks=False)


def nobody() -> frozenset[str]:
    return frozenset()


def test_it_is_private_and_goes_with_its_manager(tmp_path: Path) -> None:
    with runtime_directory("abc", tmp_path) as runtime:
        assert (runtime.path, runtime.left_by) == (place(tmp_path, "abc"), None)
        assert runtime.path.stat().st_mode & 0o7777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_that_of_a_killed_manager_is_taken_over_with_its_mark(tmp_path: Path) -> None:
    socket = place(tmp_path, "abc") / "socket"
    with holder(tmp_path, "abc") as manager:
        eventually(socket.exists)
        manager.kill()
    with runtime_directory("abc", tmp_path) as runtime:
        assert runtime.left_by == "abcd"
        clear(runtime.path)
        assert not socket.exists()
        runtime.sign("ef01")
    with runtime_directory("abc", tmp_path) as runtime:
        assert runtime.left_by is None


def test_one_that_was_not_signed_since_it_was_left_behind_tells_the_next_one_the_same(tmp_path: Path) -> None:
    """A process of the manager before may not have died yet."""
    left_long_ago(tmp_path, "abc")
    for _ in range(2):
        with runtime_directory("abc", tmp_path) as runtime:
            assert runtime.left_by == "0123"
            clear(runtime.path)
    with runtime_directory("abc", tmp_path) as runtime:
        runtime.sign("ef01")
    assert list(tmp_path.iterdir()) == []


def test_one_that_was_killed_before_it_signed_has_left_nothing(tmp_path: Path) -> None:
    place(tmp_path, "abc").mkdir(mode=0o700)
    with runtime_directory("abc", tmp_path) as runtime:
        assert runtime.left_by == ""


def test_that_of_a_living_manager_is_refused(tmp_path: Path) -> None:
    with holder(tmp_path, "abc"):
        eventually((place(tmp_path, "abc") / "socket").exists)
        with pytest.raises(DbbError, match="used by another manager"), runtime_directory("abc", tmp_path):
            pass
        assert (place(tmp_path, "abc") / "socket").exists()


def test_those_of_killed_managers_that_never_came_back_are_removed(tmp_path: Path) -> None:
    left_long_ago(tmp_path, "abc")
    left_long_ago(tmp_path, "def")
    assert remove_forgotten(nobody, tmp_path) == 2
    assert list(tmp_path.iterdir()) == []


def test_that_of_a_living_manager_is_no_forgotten_one_however_old(tmp_path: Path) -> None:
    with runtime_directory("abc", tmp_path) as runtime:
        age(runtime.path)
        assert remove_forgotten(nobody, tmp_path) == 0
        assert runtime.path.exists()


def test_that_of_a_manager_whose_programs_live_is_left_to_the_next_one(tmp_path: Path) -> None:
    left = left_long_ago(tmp_path, "abc", mark="abc-of-a-test")
    with Background(["sleep", "600"], env={MARK: "abc-of-a-test"}) as program:
        eventually(lambda: "abc-of-a-test" in marks())
        assert remove_forgotten(marks, tmp_path) == 0
        assert left.exists()
        os.kill(program.pid, signal.SIGKILL)
        program.wait(10)
    assert remove_forgotten(marks, tmp_path) == 1


def _recent(root: Path) -> None:
    place(root, "abc").mkdir(mode=0o700)


def _link(root: Path) -> None:
    (root / "elsewhere").mkdir(mode=0o700)
    place(root, "abc").symlink_to(root / "elsewhere")
    age(root / "elsewhere")
    age(place(root, "abc"))


def _open_to_all(root: Path) -> None:
    left_long_ago(root, "abc").chmod(0o755)


def _file(root: Path) -> None:
    place(root, "abc").touch(mode=0o600)
    age(place(root, "abc"))


def _other_name(root: Path) -> None:
    left_long_ago(root, "abc").rename(root / f"dbb-{os.getuid() + 1}-abc")


@pytest.mark.parametrize("make", [_recent, _link, _open_to_all, _file, _other_name])
def test_what_is_none_of_a_killed_manager_stays(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert remove_forgotten(nobody, tmp_path) == 0
    assert sorted(tmp_path.rglob("*")) == before
