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


def assert_whole(told: str, count: int) -> None:
    """All that the summary has to say of so many files."""
    for result in (
        f"written     {count} files",
        f"delivered   {count} of {count} ",
        f"held        {count} of {count} ",
        f"ingested    {count} of {count} ",
        "0 left in the buffers",
        f"hdfmgr: {count} held; endmgr: {count} ingested",
        "every file arrived intact, and was ingested once",
    ):
        assert result in told, told


def test_every_file_of_the_night_is_catalogued_although_the_manager_is_killed(told: str, place: Path) -> None:
    assert_whole(told, 12)
    assert "SIGKILL to the handoff manager" in told
    killed, resumed = re.findall(r"manager (\d+)", told.partition("killed ")[2].partition("\n")[0])
    assert killed != resumed
    assert left_running(place) == []


def test_one_file_is_followed_from_its_origin_to_its_row(told: str) -> None:
    digests = re.findall(r"^  ([0-9a-f]{64}) ", told, re.MULTILINE)
    assert len(digests) == 5
    assert len(set(digests)) == 1
    assert "its row in the catalogue: DECam, exposure 1234001, detector 1, filter " in told


def test_what_it_says_about_looking_at_it_works(told: str) -> None:
    looks = re.findall(r"^  (\S+/(hdfmgr|endmgr) .*|sqlite3 .*)$", told, re.MULTILINE)
    assert [look.split()[0].rpartition("/")[2] for look, _ in looks] == [
        "hdfmgr",
        "endmgr",
        "endmgr",
        "sqlite3",
    ]
    for look, _ in looks:
        looked = run(["sh", "-c", look], cwd=REPOSITORY, timeout=30)
        assert looked.exit_code == 0, looked.stderr.decode()
        assert looked.stdout


def test_the_night_can_go_into_a_butler_repository(place: Path) -> None:
    small = ("--exposures", "2", "--detectors", "2", "--pixels", "100", "--butler")
    argv = [sys.executable, "-m", "tests.demo", *small]
    done = run(argv, cwd=REPOSITORY, env={"TMPDIR": str(place)}, timeout=100)
    assert done.exit_code == 0, (done.stdout + done.stderr).decode()
    told = done.stdout.decode()
    assert_whole(told, 4)
    assert len(re.findall(r"DECam, exposure \d+, filter .*: 2 detectors", told)) == 2
    assert left_running(place) == []


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
