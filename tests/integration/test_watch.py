"""What inotify tells of a real buffer, and what is left when it can't."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from common.watch import Changes, Watch
from tests.apart import apart, mount, own_namespaces, unmount
from tests.shared import mount_shared


@pytest.fixture
def buffer(tmp_path: Path) -> Path:
    path = tmp_path / "buffer"
    path.mkdir()
    return path


@pytest.fixture
def watch(buffer: Path) -> Iterator[Watch]:
    with Watch(os.fsencode(buffer)) as watch:
        yield watch


def is_quiet(watch: Watch) -> bool:
    return not wait([watch.fileno()], 0)


def drained(watch: Watch) -> Changes:
    """All that there is to be told, as one."""
    kinds: dict[bytes, bool] = {}
    overflowed = False
    while not is_quiet(watch):
        changes = watch.changes()
        kinds |= {path: path in changes.moved_in for path in changes.paths}
        overflowed |= changes.overflowed
    moved_in = frozenset(path for path, moved in kinds.items() if moved)
    return Changes(tuple(sorted(kinds)), moved_in, overflowed)


def test_a_file_is_told_when_it_is_closed_and_not_before(buffer: Path, watch: Watch) -> None:
    with (buffer / "file").open("w") as file:
        file.write("content")
        file.flush()
        assert drained(watch) == Changes()
    assert drained(watch) == Changes((b"file",))


def test_nothing_to_tell_is_told_without_waiting(watch: Watch) -> None:
    assert is_quiet(watch)
    assert watch.changes() == Changes()


def test_a_file_that_is_only_read_or_removed_is_not_told(buffer: Path, watch: Watch) -> None:
    (buffer / "file").touch()
    drained(watch)
    (buffer / "file").read_text()
    (buffer / "file").unlink()
    assert drained(watch) == Changes()


def test_a_file_that_is_renamed_into_its_place_is_told_as_that(
    tmp_path: Path, buffer: Path, watch: Watch
) -> None:
    (tmp_path / "outside").touch()
    (tmp_path / "outside").rename(buffer / "from outside")
    (buffer / "part").touch()
    (buffer / "part").rename(buffer / "whole")
    assert drained(watch) == Changes(
        (b"from outside", b"part", b"whole"), moved_in=frozenset({b"from outside", b"whole"})
    )


def test_a_file_that_was_renamed_and_then_written_to_is_not_told_as_complete(
    tmp_path: Path, buffer: Path, watch: Watch
) -> None:
    (tmp_path / "outside").touch()
    (tmp_path / "outside").rename(buffer / "file")
    (buffer / "file").write_text("more")
    assert drained(watch) == Changes((b"file",))


def test_a_file_that_is_closed_many_times_is_told_once(buffer: Path, watch: Watch) -> None:
    for _ in range(3):
        (buffer / "file").touch()
        (buffer / "other").touch()
    assert sorted(watch.changes().paths) == [b"file", b"other"]


@pytest.mark.parametrize("name", [b"with space", b"new\nline", b"not utf-8 \xff\xfe", b"caf\xc3\xa9", b"-rf"])
def test_any_name_is_told_as_it_is(buffer: Path, watch: Watch, name: bytes) -> None:
    os.mkdir(os.path.join(os.fsencode(buffer), name))
    drained(watch)
    path = os.path.join(name, name)
    Path(os.fsdecode(os.path.join(os.fsencode(buffer), path))).touch()
    assert drained(watch) == Changes((path,))


def test_files_in_directories_that_were_there_before_are_told(buffer: Path) -> None:
    (buffer / "2026/night").mkdir(parents=True)
    (buffer / "2026/night/old").touch()
    with Watch(os.fsencode(buffer)) as watch:
        (buffer / "2026/night/new").touch()
        assert drained(watch) == Changes((b"2026/night/new",))


def test_what_is_in_a_new_directory_before_it_is_watched_is_told(buffer: Path, watch: Watch) -> None:
    (buffer / "2026/night").mkdir(parents=True)
    (buffer / "2026/night/early").touch()
    assert drained(watch) == Changes((b"2026/night/early",))
    (buffer / "2026/night/late").touch()
    assert drained(watch) == Changes((b"2026/night/late",))


def test_no_file_is_missed_while_directories_appear_under_the_watch(buffer: Path, watch: Watch) -> None:
    program = (
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "for number in range(300):\n"
        "    os.makedirs(f'{number}/raw')\n"
        "    open(f'{number}/file', 'w').close()\n"
        "    open(f'{number}/raw/file', 'w').close()\n"
    )
    told: set[bytes] = set()
    with subprocess.Popen([sys.executable, "-c", program, buffer]) as writer:
        while writer.poll() is None or not is_quiet(watch):
            wait([watch.fileno()], 0.01)
            changes = watch.changes()
            assert not changes.overflowed
            told.update(changes.paths)
    assert told == {f"{number}{place}/file".encode() for number in range(300) for place in ("", "/raw")}


def test_the_files_of_a_directory_that_is_renamed_into_the_buffer_are_complete(
    tmp_path: Path, buffer: Path, watch: Watch
) -> None:
    (tmp_path / "night/raw").mkdir(parents=True)
    (tmp_path / "night/raw/file").touch()
    (tmp_path / "night").rename(buffer / "night")
    assert drained(watch) == Changes((b"night/raw/file",), moved_in=frozenset({b"night/raw/file"}))
    (buffer / "night/raw/late").touch()
    assert drained(watch) == Changes((b"night/raw/late",))


def test_a_directory_that_is_renamed_in_the_buffer_is_told_under_its_new_name(
    buffer: Path, watch: Watch
) -> None:
    (buffer / "a/raw").mkdir(parents=True)
    drained(watch)
    (buffer / "a").rename(buffer / "b")
    (buffer / "b/raw/before").touch()
    drained(watch)
    (buffer / "b/raw/after").touch()
    (buffer / "b/after").touch()
    assert drained(watch) == Changes((b"b/after", b"b/raw/after"))


def test_a_file_that_is_closed_in_a_directory_under_way_is_told_where_it_is(
    buffer: Path, watch: Watch
) -> None:
    (buffer / "a").mkdir()
    drained(watch)
    (buffer / "a").rename(buffer / "b")
    (buffer / "b").rename(buffer / "c")
    (buffer / "c/file").touch()
    (buffer / "c").rename(buffer / "d")
    assert b"d/file" in drained(watch).paths


def test_a_directory_that_left_the_buffer_is_not_heard_of_any_more(
    tmp_path: Path, buffer: Path, watch: Watch
) -> None:
    (buffer / "night/raw").mkdir(parents=True)
    drained(watch)
    (buffer / "night").rename(tmp_path / "night")
    drained(watch)
    (tmp_path / "night/raw/file").touch()
    (tmp_path / "night/file").touch()
    assert drained(watch) == Changes()


def test_a_directory_that_took_the_place_of_one_that_left_is_heard_of(
    tmp_path: Path, buffer: Path, watch: Watch
) -> None:
    (buffer / "night").mkdir()
    drained(watch)
    (buffer / "night").rename(tmp_path / "night")
    (buffer / "night").mkdir()
    drained(watch)
    (tmp_path / "night/elsewhere").touch()
    (buffer / "night/here").touch()
    assert drained(watch) == Changes((b"night/here",))


def test_a_directory_that_is_made_again_is_heard_of(buffer: Path, watch: Watch) -> None:
    for _ in range(3):
        (buffer / "night").mkdir()
        drained(watch)
        (buffer / "night/file").touch()
        assert drained(watch) == Changes((b"night/file",))
        shutil.rmtree(buffer / "night")
        assert drained(watch) == Changes()
    assert watch.healthy


def test_a_file_that_leaves_for_the_holding_area_costs_no_event(
    tmp_path: Path, buffer: Path, watch: Watch
) -> None:
    for number in range(10):
        (buffer / str(number)).touch()
    drained(watch)
    for number in range(10):
        (buffer / str(number)).rename(tmp_path / str(number))
    assert is_quiet(watch)


def test_a_link_to_a_directory_is_not_watched(tmp_path: Path, buffer: Path) -> None:
    (tmp_path / "outside").mkdir()
    (buffer / "link").symlink_to(tmp_path / "outside")
    with Watch(os.fsencode(buffer)) as watch:
        (buffer / "another").symlink_to(tmp_path / "outside")
        drained(watch)
        (tmp_path / "outside/file").touch()
        assert drained(watch) == Changes()


def test_a_new_directory_that_holds_more_than_a_page_is_an_overflow(tmp_path: Path, buffer: Path) -> None:
    (tmp_path / "night/raw").mkdir(parents=True)
    for number in range(20):
        (tmp_path / f"night/raw/{number}").touch()
    with Watch(os.fsencode(buffer), page=10) as watch:
        (tmp_path / "night").rename(buffer / "night")
        changes = watch.changes()
        assert changes.overflowed
        assert len(changes.paths) == 10
        (buffer / "night/raw/late").touch()
        assert drained(watch) == Changes((b"night/raw/late",))


def test_more_than_can_be_told_at_once_is_told_the_next_time(buffer: Path, watch: Watch) -> None:
    for number in range(3000):
        (buffer / str(number)).touch()
    first = watch.changes()
    assert 0 < len(first.paths) < 3000
    assert set(first.paths) | set(drained(watch).paths) == {str(number).encode() for number in range(3000)}


def test_an_overflow_of_the_kernels_queue_is_told_and_survived(buffer: Path, watch: Watch) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    files = [buffer / "a", buffer / "b"]
    for number in range(limit + 10):
        # The same event twice in a row would be merged into one.
        os.close(os.open(files[number % 2], os.O_CREAT | os.O_WRONLY))
    (buffer / "night/raw").mkdir(parents=True)
    assert drained(watch).overflowed
    assert watch.healthy
    (buffer / "night/raw/file").touch()
    assert drained(watch) == Changes((b"night/raw/file",))


def test_a_buffer_that_is_removed_is_missed_until_it_is_back(buffer: Path, watch: Watch) -> None:
    buffer.rmdir()
    assert drained(watch).overflowed
    assert not watch.healthy
    assert "No such file or directory" in watch.reason
    assert watch.hint
    assert is_quiet(watch)
    buffer.mkdir()
    watch.renew()
    assert watch.healthy
    (buffer / "file").touch()
    assert drained(watch) == Changes((b"file",))


def test_a_buffer_that_is_replaced_is_watched_in_its_new_shape(
    tmp_path: Path, buffer: Path, watch: Watch
) -> None:
    buffer.rename(tmp_path / "old")
    buffer.mkdir()
    assert drained(watch).overflowed
    assert watch.healthy
    (tmp_path / "old/elsewhere").touch()
    (buffer / "here").touch()
    assert drained(watch) == Changes((b"here",))


Told = tuple[bool, str, str, Changes]


def under_limit(buffer: Path, limit: str, value: int) -> Told:
    """Watch where the kernel allows so few; tells whether it could be made so, and what came of a file."""
    limited = own_namespaces()
    if limited:
        Path("/proc/sys/user", limit).write_text(str(value))
    with Watch(os.fsencode(buffer)) as watch:
        (buffer / "file").touch()
        return limited, watch.reason, watch.hint, drained(watch)


def test_too_many_directories_are_told_and_the_rest_is_still_heard_of(buffer: Path) -> None:
    for number in range(5):
        (buffer / str(number)).mkdir()
    limited, reason, hint, changes = apart(under_limit, buffer, "max_inotify_watches", 3)
    assert changes == Changes((b"file",))
    assert ("fs.inotify.max_user_watches is reached" in reason) == limited
    assert ("sysctl fs.inotify.max_user_watches=" in hint) == limited


def test_too_many_watches_of_one_user_are_told_and_leave_something_to_wait_on(buffer: Path) -> None:
    limited, reason, hint, changes = apart(under_limit, buffer, "max_inotify_instances", 0)
    assert changes == (Changes() if limited else Changes((b"file",)))
    assert ("fs.inotify.max_user_instances is reached" in reason) == limited
    assert ("sysctl fs.inotify.max_user_instances=" in hint) == limited


def on_shared(buffer: Path, place: str) -> tuple[bool, str]:
    mounted = own_namespaces() and mount_shared(buffer / place)
    with Watch(os.fsencode(buffer)) as watch:
        return mounted, watch.reason


@pytest.mark.parametrize("place", ["", "night"], ids=["the whole buffer", "a directory of it"])
def test_that_other_hosts_cause_no_events_is_told(buffer: Path, place: str) -> None:
    (buffer / "night").mkdir()
    mounted, reason = apart(on_shared, buffer, place)
    assert ("shared filesystem (fuse)" in reason) == mounted


def over_unmount(buffer: Path) -> tuple[bool, bool, Changes, Changes]:
    """Take a filesystem away from under a watch, or a directory where nothing may be mounted."""
    mounted = own_namespaces() and mount("tmpfs", buffer / "disk")
    with Watch(os.fsencode(buffer)) as watch:
        gone = unmount(buffer / "disk") if mounted else False
        first = drained(watch)
        (buffer / "disk/file").touch()
        return mounted, gone, first, drained(watch)


def test_a_filesystem_in_the_buffer_can_be_unmounted_and_what_it_hid_is_watched(buffer: Path) -> None:
    (buffer / "disk").mkdir()
    mounted, gone, first, second = apart(over_unmount, buffer)
    assert gone == mounted
    assert first.overflowed == mounted
    assert second == Changes((b"disk/file",))


@pytest.mark.parametrize("seed", range(2))
def test_no_storm_of_renames_leaves_a_place_unheard_of(
    tmp_path: Path, buffer: Path, watch: Watch, seed: int
) -> None:
    program = (
        "import os, random, sys\n"
        "os.chdir(sys.argv[1])\n"
        "dice = random.Random(int(sys.argv[2]))\n"
        "for number in range(1000):\n"
        "    places = [root for root, _, _ in os.walk('.') if root != '.'] or ['.']\n"
        "    source, target = dice.choice(places), dice.choice(places)\n"
        "    name = f'{target}/d{number}'\n"
        "    try:\n"
        "        if len(places) < 30: os.mkdir(name)\n"
        "        else: os.rename(source, dice.choice([name, f'../out{number}']))\n"
        "    except OSError: pass\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, buffer, str(seed)]) as writer:
        while writer.poll() is None or not is_quiet(watch):
            wait([watch.fileno()], 0.01)
            watch.changes()
    expected = set()
    for directory, _, _ in os.walk(os.fsencode(buffer)):
        path = os.path.join(directory, b"file")
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        expected.add(os.path.relpath(path, os.fsencode(buffer)))
    for outside in tmp_path.glob("out*"):
        (outside / "file").touch()
    assert drained(watch) == Changes(tuple(sorted(expected)))
