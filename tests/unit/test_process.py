"""Programs run, end and are ended as `common.process` promises."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from common.errors import ProcessError
from common.process import Background, Completed, run
from tests.loopback import REPOSITORY


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def gone_within(seconds: float, pid: int) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


def read_pid(path: Path) -> int:
    deadline = time.monotonic() + 10
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.01)
    return int(path.read_text())


def python_running(statement: str) -> Background:
    program = f"from common.process import run, Background; import signal, time; {statement}"
    return Background([sys.executable, "-c", program], cwd=REPOSITORY)


def test_a_program_is_fed_and_heard() -> None:
    done = run(["sh", "-c", "cat; echo trouble >&2; exit 3"], stdin=b"hello")
    assert done == Completed(
        (b"sh", b"-c", b"cat; echo trouble >&2; exit 3"), 3, b"hello", b"trouble\n", done.seconds, "exited"
    )


def test_a_signal_shows_as_a_negative_exit_code() -> None:
    assert run(["sh", "-c", "kill -9 $$"]).exit_code == -signal.SIGKILL


def test_arguments_are_bytes_and_never_seen_by_a_shell() -> None:
    assert run(["printf", "%s", b"\xff $(id) '\n"]).stdout == b"\xff $(id) '\n"


def test_large_input_and_output_do_not_wait_for_each_other() -> None:
    data = os.urandom(1 << 22)
    assert run(["cat"], stdin=data, timeout=20).stdout == data


def test_a_program_need_not_read_its_input() -> None:
    assert run(["true"], stdin=b"x" * (1 << 20)).exit_code == 0


def test_of_much_output_the_end_is_kept() -> None:
    done = run(["seq", "1000000"], stdout_limit=1000)
    assert done.stdout.endswith(b"\n999999\n1000000\n")
    assert 1000 <= len(done.stdout) <= 2000


def test_the_environment_is_added_to() -> None:
    assert run(["sh", "-c", 'echo "$NEW:${PATH:+path}"'], env={"NEW": "1"}).stdout == b"1:path\n"


def test_the_last_words_are_the_last_line_that_says_something() -> None:
    assert run(["printf", r"a\nb\r\n\n"]).last_words == ""
    assert run(["sh", "-c", r"printf 'a\nb\377\r\n\n' >&2"]).last_words == r"b\xff"


def test_a_program_has_no_terminal_to_ask() -> None:
    """It leads a session of its own, which has none."""
    pid, session, terminal = run(["sh", "-c", "cut -d' ' -f1,6,7 /proc/$$/stat"]).stdout.split()
    assert (session, terminal) == (pid, b"0")


def test_a_time_limit_ends_the_whole_group(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; wait"
    done = run(["sh", "-c", script], timeout=0.3)
    assert done.ended == "timeout"
    assert done.seconds < 2
    assert gone_within(10, read_pid(tmp_path / "pid"))


def test_who_ignores_the_request_to_end_is_killed() -> None:
    done = run(["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"], timeout=0.2)
    assert (done.exit_code, done.ended) == (-signal.SIGKILL, "timeout")
    assert done.seconds < 4


def test_a_stalled_program_is_killed() -> None:
    done = run(["sleep", "1000"], stall_timeout=0.6)
    assert done.ended == "stalled"
    assert 0.6 < done.seconds < 4


@pytest.mark.parametrize(
    "busy",
    [
        "for i in 1 2 3 4 5 6; do sleep 0.3; echo word; done",
        "for i in 1 2 3 4 5 6; do sleep 0.3; head -c 9 /dev/zero > /dev/null; done",
    ],
    ids=["talks", "moves bytes"],
)
def test_a_program_that_gets_on_is_left_alone(busy: str) -> None:
    assert run(["sh", "-c", busy], stall_timeout=1.2).ended == "exited"


def test_progress_is_told_in_bytes() -> None:
    told: list[int] = []
    copy = "for i in 1 2 3; do head -c 1000000 /dev/zero; sleep 0.4; done"
    run(["sh", "-c", f"({copy}) | cat > /dev/null"], on_progress=told.append)
    assert told == sorted(told)
    assert 2_000_000 <= told[-1] <= 3_000_100


def test_a_descendant_that_holds_the_pipes_holds_up_nobody(tmp_path: Path) -> None:
    done = run(["sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; echo done"])
    assert done.stdout == b"done\n"
    assert done.seconds < 2
    assert gone_within(10, read_pid(tmp_path / "pid"))


def test_a_flood_from_a_descendant_that_got_away_is_not_waited_for(tmp_path: Path) -> None:
    flood = f"echo $$ > {tmp_path}/pid; exec yes"
    done = run(["sh", "-c", f"setsid sh -c '{flood}' & sleep 0.3; echo done >&2"], stdout_limit=1000)
    assert done.stderr == b"done\n"
    assert done.seconds < 5
    os.kill(read_pid(tmp_path / "pid"), signal.SIGKILL)


def test_a_program_that_closes_its_output_is_waited_for() -> None:
    done = run(["sh", "-c", "exec >&- 2>&-; sleep 0.4; exit 4"])
    assert done.exit_code == 4


def test_an_exception_ends_the_group(tmp_path: Path) -> None:
    def refuse(_: int) -> None:
        raise KeyboardInterrupt

    script = f"echo $$ > {tmp_path}/pid; while :; do head -c 9 /dev/zero; sleep 0.1; done"
    with pytest.raises(KeyboardInterrupt):
        run(["sh", "-c", script], on_progress=refuse)
    assert not alive(read_pid(tmp_path / "pid"))


def test_an_interrupt_ends_the_group(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; exec sleep 1000"
    with python_running(f"run(['sh', '-c', {script!r}])") as parent:
        pid = read_pid(tmp_path / "pid")
        os.kill(parent.pid, signal.SIGINT)
        assert parent.wait(10) is not None
        assert gone_within(10, pid)


def test_a_program_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; exec sleep 1000"
    with python_running(f"run(['sh', '-c', {script!r}])") as parent:
        pid = read_pid(tmp_path / "pid")
        parent.kill()
        assert gone_within(10, pid)


def test_a_background_program_may_be_asked_to_go_when_its_parent_was_killed(tmp_path: Path) -> None:
    script = (
        f"trap 'echo 1 > {tmp_path}/left; exit' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done"
    )
    statement = f"Background(['sh', '-c', {script!r}], death_signal=signal.SIGTERM); time.sleep(1000)"
    with python_running(statement) as parent:
        pid = read_pid(tmp_path / "pid")
        parent.kill()
        assert read_pid(tmp_path / "left") == 1
        assert gone_within(10, pid)


def test_a_missing_program_is_named() -> None:
    with pytest.raises(ProcessError, match="no-such-tool: not found") as caught:
        run(["no-such-tool", "x"])
    assert "install no-such-tool" in caught.value.hint


def test_a_missing_working_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="working directory is not there"):
        run(["true"], cwd=tmp_path / "nowhere")


def test_a_file_that_is_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "tool").touch()
    with pytest.raises(ProcessError, match="tool: can't be started: Permission denied") as caught:
        run([str(tmp_path / "tool")])
    assert "by hand" in caught.value.hint


def test_a_background_program_runs_until_it_is_closed(tmp_path: Path) -> None:
    with Background(["sh", "-c", "echo here; exec sleep 1000"], output=tmp_path / "output") as program:
        assert program.poll() is None
        assert program.wait(0.05) is None
    assert program.poll() == -signal.SIGTERM
    assert (tmp_path / "output").read_text() == "here\n"


def test_a_background_program_is_ended_with_its_group(tmp_path: Path) -> None:
    with Background(["sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; exit 7"]) as program:
        pid = read_pid(tmp_path / "pid")
        assert program.wait(5) == 7
        assert alive(pid)
        assert program.kill() == 7
        assert gone_within(10, pid)


def test_what_a_thread_of_a_background_program_started_is_ended_as_well(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, threading\n"
        "threading.Thread(target=subprocess.run, args=(['setsid', 'sh', '-c', sys.argv[1]],)).start()"
    )
    script = f"echo $$ > {tmp_path}/pid; exec sleep 1000"
    with Background([sys.executable, "-c", program, script]) as threaded:
        pid = read_pid(tmp_path / "pid")
        threaded.kill(wholly=True)
        assert gone_within(10, pid)


def test_a_background_program_gets_the_descriptors_that_it_is_given() -> None:
    reader, writer = os.pipe()
    with Background(["sh", "-c", f"echo hello > /dev/fd/{writer}"], pass_fds=(writer,)) as program:
        assert program.wait(5) == 0
    os.close(writer)
    assert os.read(reader, 99) == b"hello\n"
    os.close(reader)


def test_work_of_our_own_goes_on_while_a_program_runs() -> None:
    steps = iter(range(1000))
    done = run(["sh", "-c", "sleep 0.2; cat"], stdin=b"x" * 1_000_000, meanwhile=steps)
    assert (done.exit_code, len(done.stdout)) == (0, 1_000_000)
    assert next(steps, None) is None


def test_work_of_our_own_may_be_left_unfinished() -> None:
    def endless() -> Iterator[None]:
        while True:
            time.sleep(0.001)
            yield

    steps = endless()
    assert run(["sleep", "0.1"], meanwhile=steps).exit_code == 0
    assert next(steps, "ended") is None
