"""What a running manager tells is one event a line, and trouble with its log is no trouble with its work."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

from tests.loopback import Sites, files_below, write_file
from tests.runs import Run, counts, eventually
from tests.troubles import assert_stops, carry_all, disk, fill

_LOST = "the log file can't be written"


@pytest.fixture
def logs(sites: Sites) -> Path:
    directory = sites.directory / "logs"
    directory.mkdir()
    return directory


def write_config(sites: Sites, logs: Path, **settings: object) -> None:
    """With the manager's messages in a file."""
    form = "%(levelname)s|%(message)s"
    sites.write_config(logging={"file": str(logs / "log"), "format": form, **settings})


def read(directory: Path) -> str:
    """All that was logged there, as far as it is kept."""
    told = []
    for path in directory.glob("log*"):
        with suppress(FileNotFoundError):  # it has just been given its other name
            told.append((path.stat().st_mtime_ns, path.read_text(errors="backslashreplace")))
    return "".join(text for _, text in sorted(told))


def occasion(sites: Sites) -> Callable[[], bool]:
    """Gives the manager something to say at each call: it names what is no file."""
    numbers = count()

    def give() -> bool:
        (sites.buffer / f"link-{next(numbers)}").symlink_to("nowhere")
        return True

    return give


def test_each_event_is_one_json_object_on_one_line(sites: Sites, logs: Path) -> None:
    write_config(sites, logs, json=True, level="DEBUG")
    name = "two\nlines \x1b[2J \u2028 \udcff.fits".encode(errors="surrogateescape")
    write_file(sites.buffer, name, b"mine")
    write_file(sites.endpoint_buffer, name, b"another's")
    assert carry_all(sites) == 3
    events = [json.loads(line) for line in (logs / "log").read_text("utf-8").splitlines()]
    assert {tuple(event) for event in events} == {("time", "level", "logger", "message")}
    [told] = [event for event in events if event["message"].startswith("conflict: ")]
    assert told["level"] == "WARNING"
    assert told["message"].startswith(r"conflict: two\nlines \x1b[2J \xe2\x80\xa8 \xff.fits: ")


def test_a_log_is_begun_anew_by_size_and_the_newest_files_are_kept(sites: Sites, logs: Path) -> None:
    write_config(sites, logs, rotate="size", maxbytes=1000, backup_count=2)
    tell = occasion(sites)
    for _ in range(50):
        tell()
    assert carry_all(sites) == 0
    assert sorted(os.listdir(logs)) == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 1000 for path in logs.iterdir())
    assert (logs / "log").read_text().splitlines()[-1] == "INFO|stopped"


def test_a_log_is_begun_anew_by_time_and_no_event_is_lost(sites: Sites, logs: Path) -> None:
    write_config(sites, logs, rotate="time", when="s", interval=1)
    tell = occasion(sites)
    with Run(sites) as manager:
        eventually(lambda: tell() and len(os.listdir(logs)) > 2)
        eventually(lambda: len(os.listdir(sites.buffer)) == read(logs).count("left alone"))
        assert_stops(manager)
    told = read(logs)
    assert all(re.fullmatch(r"log(\.\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)?", name) for name in os.listdir(logs))
    assert told.startswith("INFO|started")
    assert told.endswith("INFO|stopped\n")


@contextmanager
def _full(logs: Path) -> Iterator[None]:
    ballast = fill(logs)
    yield
    ballast.unlink()


@contextmanager
def _gone(logs: Path) -> Iterator[None]:
    shutil.rmtree(logs)
    yield
    logs.mkdir()


@contextmanager
def _read_only(logs: Path) -> Iterator[None]:
    with disk(logs, "ro"):
        yield


@pytest.mark.usefixtures("disks")
@pytest.mark.parametrize("trouble", [_full, _gone, _read_only])
def test_a_log_that_cannot_be_written_stops_nothing_and_goes_on_when_it_can(
    sites: Sites, trouble: Callable[[Path], AbstractContextManager[None]]
) -> None:
    disk_of_logs = sites.directory / "disk"
    with disk(disk_of_logs, "size=64k"):
        logs = disk_of_logs / "logs"
        logs.mkdir()
        write_config(sites, logs)
        tell = occasion(sites)
        with Run(sites) as manager:
            eventually(lambda: "started" in read(logs))
            with trouble(logs):
                eventually(lambda: tell() and _LOST in manager.said)
                path = write_file(sites.buffer, b"a.fits", b"light")
                eventually(lambda: counts(sites) == {"held": 1})
                assert not os.path.exists(path)
            eventually(lambda: tell() and "the log file can be written again" in read(logs))
            assert_stops(manager)
        kept = read(logs).splitlines()
    assert kept[-1] == "INFO|stopped"
    assert all(line.count("|") == 1 for line in kept[-3:])
    assert all(line.count("|") <= 1 for line in kept)
    assert manager.said.count(_LOST) == 1
    assert files_below(sites.holding) == {b"a.fits": b"light"}
