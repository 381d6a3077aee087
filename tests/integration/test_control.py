"""Real processes are sent into the background and stopped, and no other process is touched."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from common.control import Stopped, detach, stop
from common.errors import DbbError, LedgerError
from common.process import Background, run

REPOSITORY = Path(__file__).parent.parent.parent

OBEDIENT = (
    "import signal, sys; signal.signal(signal.SIGUSR1, lambda *_: sys.exit());"
    "print(flush=True); signal.pause()"
)
BUSY = "import signal, time; signal.signal(signal.SIGUSR1, signal.SIG_IGN); print(flush=True); time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGUSR1, signal.SIG_IGN);"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
)


def _start(tmp_path: Path, program: str) -> Background:
    """Start a program and wait until it has set up its signals."""
    output = tmp_path / "output"
    child = Background([sys.executable, "-c", program], output=output)
    deadline = time.monotonic() + 10
    while not output.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return child


def _holder_while_running(child: Background) -> int | None:
    return child.pid if child.poll() is None else None


@pytest.mark.parametrize(
    ("program", "how"), [(OBEDIENT, "finished"), (BUSY, "gave up"), (STUBBORN, "still running")]
)
def test_a_manager_is_asked_then_told_to_end(tmp_path: Path, program: str, how: str) -> None:
    with _start(tmp_path, program) as child:
        stopped = stop(lambda: _holder_while_running(child), 0.3, grace=0.3)
    assert (stopped.how, stopped.pid) == (how, child.pid)
    assert stopped.seconds < 2


def test_nothing_is_signalled_when_nobody_holds_the_lock() -> None:
    assert stop(lambda: None, 1) == Stopped("not running")


def test_a_process_that_has_lost_the_lock_is_not_signalled(tmp_path: Path) -> None:
    with _start(tmp_path, OBEDIENT) as child:
        answers = iter([child.pid])
        stopped = stop(lambda: next(answers, None), 1)
        time.sleep(0.1)
        assert child.poll() is None
    assert stopped.how == "finished"


def test_a_holder_that_the_kernel_cannot_name_is_never_signalled() -> None:
    with pytest.raises(DbbError, match="another container"):
        stop(lambda: 0, 1)


DETACHED = """
import os, sys, time
from pathlib import Path
from common.control import detach
from common.errors import LedgerError

def serve(ready):
    {body}
    return 0

launched = detach(serve, Path(sys.argv[1]))
print(launched.exit_code, launched.message, launched.hint, launched.pid)
sys.exit(launched.exit_code)
"""


def _detach(tmp_path: Path, body: str) -> tuple[list[str], int]:
    done = run(
        [sys.executable, "-c", DETACHED.format(body=body), str(tmp_path / "log")], cwd=REPOSITORY, timeout=20
    )
    assert done.stderr == b""
    return done.stdout.decode().split(), done.exit_code


def test_a_detached_manager_has_its_own_session_and_no_terminal(tmp_path: Path) -> None:
    words, code = _detach(tmp_path, "ready(); time.sleep(60)")
    process = psutil.Process(int(words[-1]))
    try:
        assert (words[0], code) == ("0", 0)
        assert os.getsid(process.pid) not in (os.getsid(0), process.pid)
        assert process.terminal() is None
        assert [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)] == [
            "/dev/null",
            "/dev/null",
            str(tmp_path / "log"),
        ]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(5)


def test_a_manager_that_fails_to_come_up_says_why_where_it_was_called(tmp_path: Path) -> None:
    words, code = _detach(tmp_path, "raise LedgerError('it is corrupt', 'restore it')")
    assert " ".join(words) == "11 it is corrupt restore it None"
    assert code == 11


def test_a_manager_that_breaks_while_coming_up_leaves_its_last_words(tmp_path: Path) -> None:
    words, code = _detach(tmp_path, "raise ValueError('what is this')")
    assert code == 1
    assert "unexpectedly" in words
    assert "what is this" in (tmp_path / "log").read_text()


def test_a_manager_that_is_killed_while_coming_up_is_told(tmp_path: Path) -> None:
    words, code = _detach(tmp_path, "os.kill(os.getpid(), 9)")
    assert code == 1
    assert "killed" in words


def test_where_its_messages_cannot_go_it_is_not_sent_into_the_background(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match=r"file/ledger\.log: .* can't be written there"):
        detach(lambda ready: 0, tmp_path / "file" / "ledger.log")
