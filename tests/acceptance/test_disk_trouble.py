"""Disks that are full, read-only, missing or lying, on either side: deliveries wait, and go on."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.loopback import Sites, Sshd, files_below, write_file
from tests.runs import Run, children, counts, eventually, leftovers, owner, rows, stand_in
from tests.troubles import (
    STRAIGHT,
    assert_stops,
    attempts,
    carry_all,
    disk,
    endpoint_state,
    fill,
    mount,
    status,
    story,
    unmount,
)

MB = 1_000_000


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory, disks: None) -> Iterator[Sshd]:
    """An sshd that sees what is mounted here."""
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def write(sites: Sites, count: int, size: int = MB) -> dict[bytes, bytes]:
    """So many files in the buffer."""
    content = {b"night/%02d.fits" % number: os.urandom(size) for number in range(count)}
    for path, data in content.items():
        write_file(sites.buffer, path, data)
    return content


def assert_delivered(sites: Sites, content: dict[bytes, bytes]) -> None:
    """Every file is where it belongs, and none was charged with what was not its fault."""
    eventually(lambda: counts(sites) == {"held": len(content)}, within=30)
    assert files_below(sites.endpoint_buffer) == files_below(sites.holding) == content
    assert attempts(sites) == 0
    assert [path for path in os.listdir(sites.staging) if not path.startswith(".")] == []


# The endpoint's disk


def test_a_full_endpoint_pauses_deliveries_until_there_is_space(sites: Sites) -> None:
    sites.write_config(general={"num_threads": 2, "batch_bytes": "3MB"})
    with disk(sites.staging.parent, "size=32m"):
        sites.staging.mkdir()
        sites.endpoint_buffer.mkdir()
        ballast = fill(sites.staging.parent, leave=5 * MB)
        content = write(sites, 12)
        with Run(sites) as manager:
            said = "deliveries wait: endpoint full"
            eventually(lambda: said in manager.said)
            time.sleep(3)
            assert manager.said.count(said) == 1
            assert 0 < len(files_below(sites.endpoint_buffer)) < 6
            # Now and then a batch tries whether there is space by now, and is cleared away.
            eventually(lambda: sorted(os.listdir(sites.staging)) == [".notes", ".receipts"])
            eventually(lambda: "endpoint full" in status(sites)["manager"]["paused"])
            assert status(sites)["endpoint"]["reachable"] is True
            ballast.unlink()
            assert_delivered(sites, content)
            assert "deliveries go on after" in manager.said
            assert_stops(manager)


def test_a_floor_of_free_space_is_kept_at_the_endpoint(sites: Sites) -> None:
    sites.write_config(general={"num_threads": 1, "batch_bytes": "50MB", "min_free": "20MB"})
    with disk(sites.staging.parent, "size=32m"):
        sites.staging.mkdir()
        sites.endpoint_buffer.mkdir()
        content = write(sites, 24)
        with Run(sites) as manager:
            eventually(lambda: "below general.min_free of 20.0 MB" in manager.said)
            time.sleep(1)
            room = os.statvfs(sites.staging)
            assert 18 * MB < room.f_bavail * room.f_frsize < 22 * MB
            assert sorted(os.listdir(sites.staging)) == [".notes", ".receipts"]
            mount(sites.staging.parent, "-o", "remount,size=100m")
            assert_delivered(sites, content)
            assert "failed" not in manager.said


def test_a_file_larger_than_the_whole_disk_of_the_endpoint_holds_up_no_other(sites: Sites) -> None:
    sites.write_config(general={"num_threads": 1, "batch_bytes": "2MB"})
    with disk(sites.staging.parent, "size=6m"):
        os.utime(write_file(sites.buffer, b"monster.fits", bytes(8 * MB)), (0, 0))
        write(sites, 3)
        with Run(sites) as manager:
            eventually(lambda: counts(sites) == {"failed": 1, "held": 3}, within=30)
            assert "monster.fits has 8.00 MB, and the endpoint's disk 6.29 MB in all" in manager.said
        assert sorted(os.listdir(sites.staging)) == [".notes", ".receipts"]


def test_an_endpoint_without_inodes_waits_as_one_that_is_full(sites: Sites) -> None:
    sites.write_config(general={"num_threads": 1})
    with disk(sites.staging.parent, "size=32m,nr_inodes=60"):
        sites.staging.mkdir()
        sites.endpoint_buffer.mkdir()
        content = write(sites, 60, 1000)
        with Run(sites) as manager:
            eventually(lambda: "deliveries wait: endpoint full" in manager.said)
            time.sleep(3)
            mount(sites.staging.parent, "-o", "remount,nr_inodes=1000")
            assert_delivered(sites, content)


def _by_a_file(sites: Sites) -> None:
    sites.endpoint_buffer.rmdir()
    sites.endpoint_buffer.write_bytes(b"")


def _back_from_a_file(sites: Sites) -> None:
    sites.endpoint_buffer.unlink()
    sites.endpoint_buffer.mkdir()


def _by_nothing(sites: Sites) -> None:
    """As where a filesystem is not mounted: what lies beneath must not be taken for it."""
    sites.staging.parent.rename(sites.directory / "away")
    sites.staging.parent.mkdir()


def _back_from_nothing(sites: Sites) -> None:
    assert os.listdir(sites.staging.parent) == []
    sites.staging.parent.rmdir()
    (sites.directory / "away").rename(sites.staging.parent)


@pytest.mark.parametrize(
    ("replace", "mend"), [(_by_a_file, _back_from_a_file), (_by_nothing, _back_from_nothing)]
)
def test_an_endpoint_directory_that_is_missing_is_waited_for_and_never_made_again(
    sites: Sites, replace: Callable[[Sites], None], mend: Callable[[Sites], None]
) -> None:
    sites.write_config()
    with Run(sites) as manager:
        eventually(lambda: endpoint_state(sites) == "reachable")
        replace(sites)
        content = write(sites, 3)
        eventually(lambda: "deliveries wait: endpoint " in manager.said)
        time.sleep(2.5)
        assert manager.said.count("is its filesystem mounted there") == 1
        mend(sites)
        assert_delivered(sites, content)


def test_an_endpoint_that_becomes_read_only_is_waited_for(sites: Sites) -> None:
    sites.write_config()
    with disk(sites.staging.parent, "size=32m"), Run(sites) as manager:
        eventually(lambda: endpoint_state(sites) == "reachable")
        mount(sites.staging.parent, "-o", "remount,ro")
        content = write(sites, 3)
        said = "deliveries wait: endpoint read-only"
        eventually(lambda: said in manager.said)
        time.sleep(3)
        # (Of two rsyncs, one may lose its words, and nobody knows why that one failed.)
        assert manager.said.count(said) == 1
        mount(sites.staging.parent, "-o", "remount,rw")
        assert_delivered(sites, content)


def test_an_endpoint_where_we_have_no_right_to_write_is_waited_for(tmp_path: Path, sshd: Sshd) -> None:
    with Sshd(tmp_path / "sshd", powerless=True) as server:
        sites = Sites(tmp_path / "sites", server)
        sites.write_config()
        with Run(sites) as manager:
            eventually(lambda: endpoint_state(sites) == "reachable")
            sites.endpoint_buffer.chmod(0o555)
            content = write(sites, 3)
            eventually(lambda: "deliveries wait: endpoint not writable" in manager.said)
            time.sleep(3)
            assert manager.said.count("deliveries wait") == 1
            sites.endpoint_buffer.chmod(0o755)
            assert_delivered(sites, content)


def test_staging_and_buffer_on_two_filesystems_are_refused(sites: Sites) -> None:
    sites.write_config()
    content = write(sites, 2)
    with disk(sites.endpoint_buffer, "size=8m"), Run(sites) as manager:
        eventually(lambda: "deliveries wait: endpoint staging and buffer apart" in manager.said)
        time.sleep(1)
        assert not files_below(sites.endpoint_buffer)
        unmount(sites.endpoint_buffer)
        assert_delivered(sites, content)
        # What the context manager takes away at the end.
        mount(sites.endpoint_buffer, "-t", "tmpfs", "tmpfs")


DAMAGE = """
"$real" "$@"
code=$?
case "$*" in
  *--files-from*)
    if [ ! -e {sign} ]; then
      : >{sign}
      for copy in {staging}/batch-*/a.fits; do {damage}; done
    fi ;;
esac
exit $code
"""


@pytest.mark.parametrize(
    "damage",
    ['truncate -s 100 "$copy"', 'printf x | dd of="$copy" conv=notrunc bs=1 seek=77 status=none'],
    ids=["truncated", "altered"],
)
def test_a_copy_that_is_damaged_in_staging_is_told_and_sent_again(
    sites: Sites, tmp_path: Path, damage: str
) -> None:
    sites.write_config(general={"retry": {"first": "0.2s"}}, endpoint={"transfer": "rsync"})
    script = DAMAGE.format(sign=tmp_path / "sign", staging=sites.staging, damage=damage)
    env = stand_in(tmp_path / "bin", "rsync", script)
    content = {b"a.fits": b"." * 10_000, b"b.fits": b"b"}
    for path, data in content.items():
        write_file(sites.buffer, path, data)
    with Run(sites, env=env) as manager:
        eventually(lambda: counts(sites) == {"held": 2})
        assert manager.said.count("what arrived in the endpoint's staging is not what was sent") == 1
    assert files_below(sites.endpoint_buffer) == files_below(sites.holding) == content
    assert story(sites, b"b.fits") == [STRAIGHT]
    assert story(sites, b"a.fits") == [["found", "sending", "failed", *STRAIGHT[1:]]]
    notes = [path.read_bytes() for path in (sites.staging / ".notes").iterdir()]
    assert sorted(note.count(b"\n") for note in notes) == [1, 1]


# The disks of this side


def test_a_read_only_holding_area_is_waited_for_while_deliveries_go_on(sites: Sites) -> None:
    sites.write_config()
    with disk(sites.holding, "size=32m,ro"), Run(sites) as manager:
        content = write(sites, 3)
        eventually(lambda: "delivered files wait in the buffer" in manager.said)
        late = write_file(sites.buffer, b"late.fits", b"late")
        content[b"late.fits"] = b"late"
        eventually(lambda: counts(sites) == {"delivered": 4})
        time.sleep(3)
        assert os.path.exists(late)
        assert manager.said.count("delivered files wait") == 1
        eventually(lambda: "holding area read-only" in status(sites)["manager"]["paused"])
        mount(sites.holding, "-o", "remount,rw")
        assert_delivered(sites, content)
        assert "the holding area takes files again" in manager.said


def test_a_full_holding_area_on_a_disk_of_its_own_is_waited_for(sites: Sites) -> None:
    sites.write_config()
    with disk(sites.holding, "size=5m"), Run(sites) as manager:
        content = write(sites, 8)
        os.utime(sites.buffer / "night/00.fits", (1, 1_000_000))
        (sites.buffer / "night/00.fits").chmod(0o640)
        eventually(lambda: "delivered files wait in the buffer" in manager.said)
        time.sleep(2.5)
        assert manager.said.count("delivered files wait") == 1
        assert not list(sites.holding.rglob("*.part"))
        mount(sites.holding, "-o", "remount,size=20m")
        assert_delivered(sites, content)
        assert not files_below(sites.buffer)
        kept = (sites.holding / "night/00.fits").stat()
        assert (kept.st_mode & 0o7777, kept.st_mtime) == (0o640, 1_000_000)


def test_a_floor_of_free_space_is_kept_in_a_holding_area_that_files_are_copied_to(sites: Sites) -> None:
    sites.write_config(general={"min_free": "10MB"})
    with disk(sites.holding, "size=14m"), Run(sites) as manager:
        content = write(sites, 8)
        eventually(lambda: "holding area, below general.min_free of 10.0 MB" in manager.said)
        room = os.statvfs(sites.holding)
        assert room.f_bavail * room.f_frsize > 8 * MB
        mount(sites.holding, "-o", "remount,size=40m")
        assert_delivered(sites, content)


def test_a_directory_that_may_not_be_written_to_keeps_no_other_files_waiting(sites: Sites) -> None:
    sites.write_config(general={"retry": {"attempts": 1}})
    closed = sites.holding / "closed"
    closed.mkdir(mode=0o555)
    write_file(sites.buffer, b"closed/a.fits")
    with Run(sites, powerless=True) as manager:
        eventually(lambda: counts(sites) == {"failed": 1})
        write_file(sites.buffer, b"b.fits")
        eventually(lambda: counts(sites) == {"failed": 1, "held": 1})
        assert [failure["cause"] for failure in status(sites)["failures"]] == ["may not be moved"]
        closed.chmod(0o755)
        assert sites.command("retry", sites.config).exit_code == 0
        eventually(lambda: counts(sites) == {"held": 2})
        assert manager.stop() == 0


def test_a_missing_holding_area_is_told_at_the_start(sites: Sites) -> None:
    sites.write_config()
    sites.holding.rmdir()
    done = sites.command("start", sites.config, "--once")
    assert done.exit_code == 1
    assert b"handoff.holding: " in done.stderr
    assert not sites.holding.exists()


@pytest.mark.parametrize("place", ["buffer", "holding"])
def test_a_disk_of_this_side_that_is_unmounted_for_a_while_loses_nothing(sites: Sites, place: str) -> None:
    sites.write_config()
    directory: Path = getattr(sites, place)
    with disk(sites.directory / "disk", "size=16m") as device:
        mount(directory, "--bind", str(device))
        with Run(sites) as manager:
            eventually(lambda: endpoint_state(sites) == "reachable")
            _by_a_file(sites)
            content = write(sites, 5)
            eventually(lambda: "deliveries wait" in manager.said)
            unmount(directory)
            _back_from_a_file(sites)
            eventually(lambda: f"{place} is not mounted any more" in manager.said)
            time.sleep(3)
            assert not files_below(directory)
            assert set(counts(sites)) <= {"found", "sending", "delivered", "holding"}
            mount(directory, "--bind", str(device))
            write_file(sites.buffer, b"late.fits", b"late")
            assert_delivered(sites, content | {b"late.fits": b"late"})
            assert not files_below(sites.buffer)
        unmount(directory)


def test_a_buffer_that_is_not_mounted_at_the_start_is_waited_for_as_one_that_was_there(sites: Sites) -> None:
    sites.write_config()
    with disk(sites.directory / "disk", "size=16m") as device:
        mount(sites.buffer, "--bind", str(device))
        _by_a_file(sites)
        content = write(sites, 3)
        assert carry_all(sites) == 3
        assert counts(sites) == {"found": 3}
        unmount(sites.buffer)
        _back_from_a_file(sites)
        with Run(sites) as manager:
            eventually(lambda: "is not mounted as before" in manager.said)
            assert set(counts(sites)) <= {"found", "sending"}
            mount(sites.buffer, "--bind", str(device))
            assert_delivered(sites, content)
        unmount(sites.buffer)
    assert rows(sites, "SELECT * FROM history WHERE target = 'vanished'") == []


def test_a_directory_that_has_no_disk_of_its_own_any_more_is_believed_once_it_holds_something(
    sites: Sites,
) -> None:
    sites.write_config()
    write_file(sites.buffer, b"a.fits", b"light")
    with disk(sites.holding, "size=16m"):
        assert carry_all(sites) == 0
    write_file(sites.buffer, b"b.fits", b"light")
    assert carry_all(sites) == 3
    assert counts(sites) == {"held": 1, "delivered": 1}
    (sites.holding / "ours").mkdir()
    assert carry_all(sites) == 0
    assert files_below(sites.holding) == {b"b.fits": b"light"}


# The disk of the ledger


def test_a_full_disk_of_the_ledger_delays_and_loses_nothing(sites: Sites) -> None:
    sites.ledger = sites.directory / "ledger" / "ledger.db"
    sites.write_config(general={"num_threads": 1})
    with disk(sites.ledger.parent, "size=6m"), Run(sites) as manager:
        eventually(lambda: endpoint_state(sites) == "reachable")
        ballast = fill(sites.ledger.parent)
        content = write(sites, 200, 10)
        eventually(lambda: "no space left for the ledger" in manager.said)
        time.sleep(2)
        ballast.unlink()
        assert_delivered(sites, content)
        assert "the ledger can be written again" in manager.said
        assert_stops(manager)


def test_a_manager_ends_in_time_while_the_disk_of_its_ledger_is_full(sites: Sites) -> None:
    sites.ledger = sites.directory / "ledger" / "ledger.db"
    sites.write_config()
    with disk(sites.ledger.parent, "size=6m"):
        with Run(sites) as manager:
            eventually(lambda: endpoint_state(sites) == "reachable")
            ballast = fill(sites.ledger.parent)
            content = write(sites, 200, 10)
            eventually(lambda: "no space left for the ledger" in manager.said)
            assert_stops(manager)
        ballast.unlink()
        with Run(sites):
            assert_delivered(sites, content)


def test_nothing_new_is_begun_while_the_disk_of_the_ledger_is_short_of_space(sites: Sites) -> None:
    sites.ledger = sites.directory / "ledger" / "ledger.db"
    sites.write_config(general={"min_free": "5MB"})
    with disk(sites.ledger.parent, "size=4m"), Run(sites) as manager:
        content = write(sites, 3)
        eventually(lambda: "free on the disk of the ledger: nothing new is begun" in manager.said)
        time.sleep(2)
        assert counts(sites) == {"found": 3}
        eventually(lambda: status(sites)["manager"]["paused"])
        mount(sites.ledger.parent, "-o", "remount,size=20m")
        assert_delivered(sites, content)


def test_work_that_makes_room_on_the_disk_of_the_ledger_goes_on_however_little_is_left(sites: Sites) -> None:
    """Buffer and ledger share a full disk, and the holding area is elsewhere."""
    with disk(sites.directory / "disk", "size=14m") as shared:
        sites.buffer, sites.ledger = shared / "buffer", shared / "ledger.db"
        sites.buffer.mkdir()
        sites.write_config(general={"min_free": "5MB"})
        content = write(sites, 10)
        with Run(sites) as manager:
            assert_delivered(sites, content)
            assert "free on the disk of the buffer: what writes into it may soon fail" in manager.said


# The runtime directory


@pytest.mark.parametrize("transfer", ["rsync", "scp"])
def test_a_runtime_directory_that_somebody_cleaned_away_is_made_again(sites: Sites, transfer: str) -> None:
    sites.write_config(endpoint={"transfer": transfer})
    with Run(sites) as manager:
        content = write(sites, 1)
        eventually(lambda: counts(sites) == {"held": 1})
        [runtime] = leftovers(sites)
        shutil.rmtree(runtime)
        write_file(sites.buffer, b"late.fits", b"late")
        content[b"late.fits"] = b"late"
        assert_delivered(sites, content)
        assert_stops(manager)
    assert not leftovers(sites)


def test_that_of_a_manager_that_was_killed_for_good_goes_when_another_starts(sites: Sites) -> None:
    sites.write_config()
    with Run(sites) as manager:
        [runtime] = eventually(lambda: leftovers(sites))
        eventually(lambda: endpoint_state(sites) == "reachable")
        manager.kill()
    eventually(lambda: not children(sites))
    # Workers that hear of its death before they die may have cleared their own away.
    (runtime / "left").touch()
    os.utime(runtime, (0, 0))
    sites.ledger = sites.directory / "another.db"
    sites.write_config()
    assert carry_all(sites) == 0
    assert not runtime.exists()


@pytest.mark.parametrize("transfer", ["rsync", "scp"])
def test_a_full_disk_under_the_runtime_directory_is_told_and_waited_for(sites: Sites, transfer: str) -> None:
    sites.write_config(endpoint={"transfer": transfer})
    assert sites.command("initdb", sites.config).exit_code == 0
    with disk(Path(f"/tmp/dbb-{os.getuid()}-{owner(sites)}"), "nr_inodes=1,mode=700") as runtime:
        content = write(sites, 1)
        with Run(sites) as manager:
            eventually(lambda: "deliveries wait: runtime directory unusable" in manager.said)
            time.sleep(2)
            assert manager.said.count("deliveries wait") == 1
            mount(runtime, "-o", "remount,nr_inodes=1000")
            assert_delivered(sites, content)
    runtime.rmdir()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("/root")])
def test_a_runtime_directory_that_is_not_ours_alone_is_refused(
    sites: Sites, make: Callable[[Path], None]
) -> None:
    sites.write_config()
    assert sites.command("initdb", sites.config).exit_code == 0
    runtime = Path(f"/tmp/dbb-{os.getuid()}-{owner(sites)}")
    make(runtime)
    try:
        done = sites.command("start", sites.config, "--once")
        assert done.exit_code == 1
        assert f"{runtime} is not a private directory".encode() in done.stderr
        assert os.path.lexists(runtime)
    finally:
        runtime.rmdir() if runtime.is_dir() and not runtime.is_symlink() else runtime.unlink()
