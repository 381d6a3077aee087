"""Empty directories leave a real buffer, and nothing else does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.sweep import sweep_empty_directories
from tests.apart import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, apart, give_up, mount, own_namespaces

NOW = 1_700_000_000.0
DAY = 86_400.0


@pytest.fixture
def buffer(tmp_path: Path) -> Path:
    path = tmp_path / "buffer"
    path.mkdir()
    return path


def directory(path: Path, *, age: float) -> Path:
    """A directory that was last changed so many seconds before `NOW`."""
    path.mkdir(parents=True, exist_ok=True)
    os.utime(path, (NOW - age, NOW - age))
    return path


def sweep(buffer: Path, *, older_than: float = DAY, now: float = NOW) -> tuple[bytes, ...]:
    return tuple(sorted(sweep_empty_directories(os.fsencode(buffer), older_than=older_than, now=now)))


def test_an_old_empty_directory_is_removed_and_a_young_one_is_not(buffer: Path) -> None:
    old, young = directory(buffer / "old", age=DAY + 1), directory(buffer / "young", age=DAY - 1)
    assert sweep(buffer) == (b"old",)
    assert not old.exists()
    assert young.exists()


def test_a_directory_that_holds_anything_is_kept(buffer: Path) -> None:
    (buffer / "file").mkdir()
    (buffer / "file/.hidden").touch()
    (buffer / "link").mkdir()
    (buffer / "link/to nowhere").symlink_to("nowhere")
    for name in ("file", "link"):
        directory(buffer / name, age=10 * DAY)
    assert sweep(buffer) == ()


def test_the_buffer_itself_stays(buffer: Path) -> None:
    directory(buffer, age=10 * DAY)
    assert sweep(buffer) == ()
    assert buffer.exists()


def test_a_buffer_that_is_not_there_has_nothing_to_remove(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none") == ()


def test_a_directory_that_lost_its_last_one_waits_for_its_own_time(buffer: Path) -> None:
    inner = directory(buffer / "2026/night", age=10 * DAY)
    directory(buffer / "2026", age=10 * DAY)
    assert sweep(buffer) == (b"2026/night",)
    assert not inner.exists()
    changed = (buffer / "2026").stat().st_mtime
    assert sweep(buffer, now=changed + DAY - 1) == ()
    assert sweep(buffer, now=changed + DAY + 1) == (b"2026",)


def test_a_directory_changed_in_the_future_stays(buffer: Path) -> None:
    directory(buffer / "night", age=-10 * DAY)
    assert sweep(buffer) == ()


def test_links_are_neither_followed_nor_removed(tmp_path: Path, buffer: Path) -> None:
    empty = directory(tmp_path / "outside/empty", age=10 * DAY)
    (buffer / "link").symlink_to(empty)
    (buffer / "up").symlink_to(tmp_path / "outside")
    assert sweep(buffer) == ()
    assert empty.exists()
    assert (buffer / "link").is_symlink()


@pytest.mark.parametrize("name", [b"new\nline", b"not utf-8 \xff", b"-rf", b" ", b"x (deleted)"])
def test_any_name_can_be_removed(buffer: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(buffer), name)
    os.mkdir(path)
    os.utime(path, (0, 0))
    assert sweep(buffer) == (name,)
    assert os.listdir(buffer) == []


def sweep_without_power(buffer: Path) -> tuple[bytes, ...]:
    give_up(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)
    return sweep(buffer)


def test_what_may_not_be_read_or_removed_stops_nothing(buffer: Path) -> None:
    for name in ("closed/a", "fixed/b", "open/c"):
        directory(buffer / name, age=10 * DAY)
    (buffer / "closed").chmod(0)
    (buffer / "fixed").chmod(0o500)
    removed = apart(sweep_without_power, buffer)
    (buffer / "closed").chmod(0o700)
    assert removed == (b"open/c",)
    assert (buffer / "closed/a").exists()
    assert (buffer / "fixed/b").exists()


def sweep_over_a_mount(buffer: Path) -> tuple[bool, tuple[bytes, ...], bool]:
    mounted = own_namespaces() and mount("tmpfs", buffer / "disk")
    if not mounted:
        (buffer / "disk/file").touch()
    directory(buffer / "disk/empty", age=10 * DAY)
    directory(buffer / "disk", age=10 * DAY)
    removed = sweep(buffer)
    os.utime(buffer / "disk", (0, 0))
    return mounted, removed + sweep(buffer), (buffer / "disk").exists()


def test_a_mount_point_stays_and_what_is_below_it_is_swept(buffer: Path) -> None:
    (buffer / "disk").mkdir()
    _, removed, exists = apart(sweep_over_a_mount, buffer)
    assert removed == (b"disk/empty",)
    assert exists


def test_no_file_is_lost_in_a_directory_that_is_filled_under_the_sweep(buffer: Path) -> None:
    program = (
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "for number in range(300):\n"
        "    while True:\n"
        "        try:\n"
        "            os.makedirs(f'night{number % 7}/raw', exist_ok=True)\n"
        "            open(f'night{number % 7}/raw/{number}', 'x').close()\n"
        "        except (FileNotFoundError, FileExistsError): continue\n"
        "        break\n"
    )
    removed = 0
    with subprocess.Popen([sys.executable, "-c", program, buffer]) as writer:
        while writer.poll() is None:
            for file in buffer.glob("*/raw/*"):
                file.rename(buffer.parent / f"held-{file.name}")
            removed += len(sweep(buffer, older_than=-1e9, now=NOW + 1e9))
    left = {path.name for path in buffer.glob("*/raw/*")}
    held = {path.name.removeprefix("held-") for path in buffer.parent.glob("held-*")}
    assert writer.returncode == 0
    assert left | held == {str(number) for number in range(300)}
    assert removed
