"""The demo carries a night through a kill, proves it, and leaves nothing running, however it ends."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from common.process import Background, run

REPOSITORY = Path(__file__).parents[2]
# One group: the demo is played once, although the suite runs in several processes.
pytestmark = pytest.mark.xdist_group("demo")
SMALL = ("--exposures", "3", "--detectors", "4", "--pixels", "200")


def left_running(directory: Path) -> list[psutil.Process]:
    """The processes that have something of a demo below this directory in their command or environment."""
    left = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().get("DBB_DEMO", "").split()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(f"{directory}/dbb-demo-" in word for word in words):
            left.append(process)
    return left


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for temporary files, in which the demo makes its own."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def told(place: Path) -> str:
    """What the demo printed; it has to succeed."""
    done = run(
        [sys.executable, "-m", "tests.demo", *SMALL],
        cwd=REPOSITORY,
        env={"TMPDIR": str(place)},
        timeout=100,
    )
    assert done.exit_code == 0, (done.stdout + done.stderr).decode()
    return done.stdout.decode()


def test_every_file_of_the_night_arrives_although_the_manager_is_killed(told: str, place: Path) -> None:
    for result in (
        "written     12 files",
        "delivered   12 of 12",
        "held        12 of 12",
        "0 left",
        "12 held",
    ):
        assert result in told
    assert "SIGKILL to the manager" in told
    killed, resumed = re.findall(r"manager (\d+)", told.partition("killed ")[2].partition("\n")[0])
    assert killed != resumed
    assert left_running(place) == []


def test_what_it_says_about_looking_at_it_works(told: str) -> None:
    commands = re.findall(r"^  \S+/hdfmgr (.*)$", told, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["status", "history"]
    for command in commands:
        looked = run([sys.executable, "-m", "handoff", *command.split()], cwd=REPOSITORY, timeout=20)
        assert looked.exit_code == 0, looked.stderr.decode()
        assert b"held" in looked.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_demo_leaves_nothing_running(number: signal.Signals, tmp_path: Path) -> None:
    output = tmp_path / "output"
    argv = [sys.executable, "-m", "tests.demo", *SMALL]
    with Background(argv, cwd=REPOSITORY, env={"TMPDIR": str(tmp_path)}, output=output) as demo:
        deadline = time.monotonic() + 30
        while "delivered" not in (output.read_text() if output.exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(demo.pid, number)
        assert demo.wait(20) != 0
    deadline = time.monotonic() + 10
    while left_running(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_running(tmp_path) == []
