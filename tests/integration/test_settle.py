"""Files that are being written, by this process and by others, while they are looked at."""

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.files import BufferedFile, Fence
from common.scan import Scanner
from common.settle import Judged, Settling
from tests.apart import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_LEASE, apart, give_up, own_namespaces
from tests.shared import NAME, mount_shared

NOBODY = 65534


@pytest.fixture(autouse=True)
def _ignore_lease_breaks() -> Iterator[None]:
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


@dataclass
class Clock:
    """A clock that goes only when it is told to."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Buffer:
    """A buffer with one file in it, and a settling whose clocks the test turns."""

    def __init__(self, root: Path, *, settle: float) -> None:
        self.file = root / "file"
        self.scanner = Scanner(os.fsencode(root))
        self.clock = Clock()
        self.wall = Clock(time.time())
        self.settling = Settling(self.scanner, settle=settle, clock=self.clock, wall=self.wall)

    def look(self) -> Judged:
        """Judge all that a walk finds."""
        return self.settling.judge([file for page in self.scanner.pages() for file in page.files])

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        self.wall.now += seconds


@pytest.fixture
def buffer(tmp_path: Path) -> Buffer:
    buffer = Buffer(tmp_path, settle=10)
    buffer.file.write_text("content")
    buffer.wall.now = time.time()
    return buffer


def seen(path: Path) -> BufferedFile:
    return BufferedFile(os.fsencode(path.name), Fence.of(path.stat()))


@contextmanager
def another_process(statement: str, path: Path) -> Iterator[None]:
    """While it stands, another process has done `statement` with `path`."""
    program = f"import mmap, sys; path = sys.argv[1]; {statement}; print('done', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"done\n"
        yield
        process.communicate(b"\n")


def test_an_old_closed_file_is_taken_at_the_first_look(buffer: Buffer) -> None:
    buffer.wall.now += 11
    assert buffer.look() == Judged(settled=(seen(buffer.file),))
    assert buffer.settling.waiting() is None


def test_a_young_file_is_taken_when_it_is_old_enough_and_no_later(buffer: Buffer) -> None:
    age = buffer.wall.now - buffer.file.stat().st_ctime
    assert buffer.look() == Judged()
    assert buffer.settling.waiting() == pytest.approx(10 - age)
    buffer.later(9.5 - age)
    assert buffer.settling.again() == Judged()
    buffer.later(0.6)
    assert buffer.settling.waiting() == 0
    assert buffer.settling.again() == Judged(settled=(seen(buffer.file),))
    assert buffer.settling.waiting() is None


def test_with_settle_zero_a_closed_file_is_taken_at_once(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path, settle=0)
    buffer.file.write_text("content")
    buffer.wall.now = time.time()
    assert buffer.look() == Judged(settled=(seen(buffer.file),))


def test_with_settle_zero_an_empty_file_may_have_a_writer_who_is_not_counted_yet(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path, settle=0)
    buffer.file.touch()
    buffer.wall.now = buffer.file.stat().st_ctime
    assert buffer.look() == Judged()
    assert buffer.settling.waiting() == pytest.approx(0.1, abs=0.001)
    buffer.later(0.2)
    assert buffer.settling.again() == Judged(settled=(seen(buffer.file),))


@pytest.mark.parametrize(
    "hold",
    [
        "file = open(path, 'ab')",
        "file = open(path, 'r+b')",
        "file = open(path, 'r+b'); memory = mmap.mmap(file.fileno(), 0); file.close()",
    ],
    ids=["append", "update", "mapped and closed"],
)
@pytest.mark.parametrize("settle", [0, 10])
def test_a_file_that_another_process_may_write_to_is_never_taken(
    tmp_path: Path, hold: str, settle: float
) -> None:
    buffer = Buffer(tmp_path, settle=settle)
    buffer.file.write_text("content")
    with another_process(hold, buffer.file):
        buffer.later(1e6)
        assert buffer.look() == Judged(open=(seen(buffer.file),))
        assert buffer.settling.waiting() is None
        assert buffer.look() == Judged(open=(seen(buffer.file),))
    assert buffer.look() == Judged(settled=(seen(buffer.file),))


def test_a_file_that_is_open_under_another_name_is_not_taken(tmp_path: Path, buffer: Buffer) -> None:
    outside = tmp_path.with_name(f"{tmp_path.name}-outside")
    os.link(buffer.file, outside)
    buffer.later(1e6)
    with another_process("file = open(path, 'ab')", outside):
        assert buffer.look().settled == ()
    assert buffer.look() == Judged(settled=(seen(buffer.file),))


@pytest.mark.parametrize(
    "hold",
    [
        "file = open(path, 'rb')",
        "file = open(path, 'rb'); memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)",
    ],
    ids=["open", "mapped"],
)
def test_a_file_that_is_only_read_is_taken(buffer: Buffer, hold: str) -> None:
    with another_process(hold, buffer.file):
        buffer.later(11)
        assert buffer.look() == Judged(settled=(seen(buffer.file),))


@pytest.mark.parametrize("mtime", [0, 2**32], ids=["1970", "2106"])
def test_a_set_modification_time_makes_no_file_older_or_younger(buffer: Buffer, mtime: int) -> None:
    os.utime(buffer.file, (mtime, mtime))
    assert buffer.look() == Judged()
    buffer.later(11)
    assert buffer.settling.again() == Judged(settled=(seen(buffer.file),))


def test_a_file_changed_in_the_future_needs_two_looks_by_the_monotonic_clock(buffer: Buffer) -> None:
    buffer.wall.now -= 3600
    assert buffer.look() == Judged()
    assert buffer.settling.waiting() == 10
    buffer.later(9)
    buffer.wall.now -= 3600
    assert buffer.look() == Judged()
    buffer.later(1)
    assert buffer.look() == Judged(settled=(seen(buffer.file),))


def rewrite(path: Path) -> None:
    path.write_text("other content")


def truncate(path: Path) -> None:
    os.truncate(path, 1)


def replace(path: Path) -> None:
    path.with_name("new").write_text("content")
    path.with_name("new").rename(path)


def change_mapped(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = ord("C")


@pytest.mark.parametrize("change", [rewrite, truncate, replace, change_mapped])
def test_a_file_that_changes_between_two_looks_starts_anew(buffer: Buffer, change: object) -> None:
    buffer.wall.now -= 3600
    assert buffer.look() == Judged()
    buffer.later(9)
    time.sleep(0.02)  # longer than a tick of the clock that stamps files
    assert callable(change)
    change(buffer.file)
    buffer.later(1)
    assert buffer.settling.again() == Judged()
    assert buffer.settling.waiting() == 10
    buffer.later(10)
    assert buffer.settling.again() == Judged(settled=(seen(buffer.file),))


def test_a_file_that_was_moved_in_is_complete(buffer: Buffer) -> None:
    file = seen(buffer.file)
    assert buffer.settling.judge([file], moved_in={b"file"}) == Judged(settled=(file,))


def test_a_file_that_waits_is_complete_once_it_is_moved_in(buffer: Buffer) -> None:
    file = seen(buffer.file)
    assert buffer.look() == Judged()
    assert buffer.settling.judge([file], moved_in={b"file"}) == Judged(settled=(file,))
    assert buffer.settling.waiting() is None


def test_a_file_that_was_moved_in_while_it_is_open_is_not_taken(buffer: Buffer) -> None:
    file = seen(buffer.file)
    with another_process("file = open(path, 'ab')", buffer.file):
        assert buffer.settling.judge([file], moved_in={b"file"}) == Judged(open=(file,))


def test_what_vanishes_is_forgotten(buffer: Buffer) -> None:
    buffer.look()
    buffer.file.unlink()
    buffer.later(11)
    assert buffer.settling.again() == Judged()
    assert buffer.settling.waiting() is None


def test_what_is_replaced_between_look_and_judgement_is_looked_at_again(buffer: Buffer) -> None:
    file = seen(buffer.file)
    replace(buffer.file)
    buffer.later(11)
    assert buffer.settling.judge([file]) == Judged()
    buffer.later(10)
    assert buffer.settling.again() == Judged(settled=(seen(buffer.file),))


def test_a_fifo_or_a_link_in_its_place_neither_blocks_nor_is_taken(buffer: Buffer, tmp_path: Path) -> None:
    file = seen(buffer.file)
    buffer.file.unlink()
    os.mkfifo(buffer.file)
    buffer.later(11)
    assert buffer.settling.judge([file]) == Judged()
    buffer.file.unlink()
    buffer.file.symlink_to("/etc/passwd")
    assert buffer.settling.judge([file]) == Judged()
    buffer.later(11)
    assert buffer.settling.again() == Judged()
    assert buffer.settling.waiting() is None


def test_hard_links_are_files_of_their_own(buffer: Buffer) -> None:
    os.link(buffer.file, buffer.file.with_name("second"))
    buffer.later(11)
    assert {file.path for file in buffer.look().settled} == {b"file", b"second"}


def test_a_judgement_leaves_no_trace_on_the_file(buffer: Buffer) -> None:
    before = buffer.file.stat()
    buffer.later(11)
    assert buffer.look().settled
    assert buffer.file.stat() == before


def test_files_whose_time_has_come_are_looked_at_so_many_at_once(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path, settle=10)
    for number in range(5):
        (tmp_path / str(number)).touch()
    assert buffer.look() == Judged()
    buffer.later(11)
    assert [len(buffer.settling.again(limit=2).settled) for _ in range(4)] == [2, 2, 1, 0]


def test_a_process_that_the_break_of_a_lease_would_kill_may_not_judge(buffer: Buffer) -> None:
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    with pytest.raises(RuntimeError, match="SIGIO"):
        buffer.look()


def test_a_writer_that_opens_it_again_and_again_is_not_disturbed_and_kills_nobody(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path, settle=0)
    program = "import sys\nwhile True: open(sys.argv[1], 'ab').close()"
    buffer.file.touch()
    with subprocess.Popen([sys.executable, "-c", program, buffer.file]) as writer:
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            buffer.settling.judge([seen(buffer.file)])
        assert writer.poll() is None
        writer.kill()


def test_a_slow_writer_is_waited_for(tmp_path: Path) -> None:
    scanner = Scanner(os.fsencode(tmp_path))
    settling = Settling(scanner, settle=0.2)
    program = (
        "import sys, time\n"
        "with open(sys.argv[1], 'wb', buffering=0) as file:\n"
        "    for _ in range(8): file.write(b'x' * 1000); time.sleep(0.05)\n"
    )
    path = tmp_path / "file"
    with subprocess.Popen([sys.executable, "-c", program, path]) as writer:
        settled: tuple[BufferedFile, ...] = ()
        while not settled:
            files = [file for page in scanner.pages() for file in page.files]
            settled = settling.judge(files).settled
            time.sleep(0.01)
        taken = time.time()
        writer.wait()
    assert settled == (seen(path),)
    assert path.stat().st_size == 8000
    assert taken - path.stat().st_ctime >= 0.2


def judge_without_lease_right(root: Path, settle: float) -> tuple[Judged, float | None, Judged, Judged]:
    """Judge a file of somebody else, as a container's root has to: at once, before its time, and after it."""
    give_up(CAP_LEASE)
    return judge_by_looks(root, settle)


def judge_by_looks(root: Path, settle: float) -> tuple[Judged, float | None, Judged, Judged]:
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    buffer = Buffer(root, settle=settle)
    buffer.wall.now += 1e6
    first = buffer.look()
    waiting = buffer.settling.waiting()
    buffer.later(9)
    second = buffer.look()
    buffer.later(1)
    return first, waiting, second, buffer.settling.again()


def give_away(path: Path) -> bool:
    """Make somebody else its owner; False where we may not, so that all files here are provably closed."""
    try:
        os.chown(path, NOBODY, -1)
    except OSError:
        return False
    return True


def test_a_file_that_nothing_can_be_proven_of_needs_two_looks(buffer: Buffer) -> None:
    foreign = give_away(buffer.file)
    first, waiting, second, third = apart(judge_without_lease_right, buffer.file.parent, 10)
    taken = Judged(settled=(seen(buffer.file),))
    if foreign:
        assert (first, waiting, second, third) == (Judged(), 10, Judged(), taken)
    else:
        assert first == taken


def test_with_settle_zero_a_file_that_nothing_can_be_proven_of_is_taken_at_once(buffer: Buffer) -> None:
    give_away(buffer.file)
    first, waiting, _, _ = apart(judge_without_lease_right, buffer.file.parent, 0)
    assert (first, waiting) == (Judged(settled=(seen(buffer.file),)), None)


def judge_without_power(root: Path) -> tuple[Judged, float | None, Judged, Judged]:
    give_up(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)
    return judge_by_looks(root, 10)


def test_a_file_that_may_not_be_read_is_taken_in_its_time_so_that_this_is_told(buffer: Buffer) -> None:
    buffer.file.chmod(0)
    *waits, last = apart(judge_without_power, buffer.file.parent)
    assert waits == [Judged(), 10, Judged()]
    assert last == Judged(settled=(seen(buffer.file),))


def judge_on_shared(root: Path) -> tuple[bool, tuple[Judged, float | None, Judged, Judged]]:
    mounted = own_namespaces() and mount_shared(root)
    return mounted, judge_by_looks(root, 10)


def test_a_lease_proves_nothing_where_other_hosts_may_write(tmp_path: Path) -> None:
    mounted, (first, waiting, second, third) = apart(judge_on_shared, tmp_path)
    if mounted:
        assert (first, waiting, second) == (Judged(), 10, Judged())
        assert [file.path for file in third.settled] == [NAME]
    else:
        assert first == second == third == Judged()
