"""What is carried first, how much of it together, how fast, and what is left alone."""

import os
import socket
import time
from pathlib import Path

import pytest

from tests.loopback import Sites, files_below, write_file
from tests.runs import Run, counts, eventually, rows, stand_in, states
from tests.troubles import carry_all


def sent(sites: Sites) -> list[int]:
    """How many files each batch had that was sent."""
    return [count for (count,) in rows(sites, "SELECT files FROM batches WHERE step = 'sending' ORDER BY id")]


@pytest.mark.parametrize("transfer", ["rsync", "scp"])
def test_all_workers_together_stay_within_the_bandwidth(sites: Sites, transfer: str) -> None:
    sites.write_config(
        endpoint={"transfer": transfer},
        general={"bandwidth": "3MB/s", "num_threads": 3, "batch_bytes": "1MB"},
    )
    for number in range(9):
        write_file(sites.buffer, b"%d.fits" % number, os.urandom(1_000_000))
    assert carry_all(sites) == 0
    assert len(files_below(sites.holding)) == 9
    query = "SELECT min(started_at), max(finished_at) FROM batches WHERE step = 'sending'"
    [(first, last)] = rows(sites, query)
    assert 9_000_000 / (last - first) * 1000 < 3_000_000 * 1.2
    assert len(rows(sites, "SELECT DISTINCT worker FROM batches WHERE step = 'sending'")) == 3


def test_no_rsync_is_needed_unless_it_is_asked_for(sites: Sites, tmp_path: Path) -> None:
    environment = stand_in(tmp_path / "bin", "rsync", "echo no >&2; exit 1")
    sites.write_config(endpoint={"transfer": "rsync"}, general={"retry": {"attempts": 1}})
    content = {b"large.fits": os.urandom(3_000_000), b"small.fits": b"light"}
    for path, data in content.items():
        write_file(sites.buffer, path, data)
    with Run(sites, env=environment) as manager:
        eventually(lambda: "rsync failed" in manager.said)
    assert files_below(sites.holding) == {}
    sites.write_config()
    with Run(sites, env=environment):
        eventually(lambda: files_below(sites.holding) == content)


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_the_order_is_that_of_modification_times(sites: Sites, order: str) -> None:
    sites.write_config(general={"order": order, "chunk_size": 1, "num_threads": 1})
    for number in (3, 1, 4, 0, 2):
        path = write_file(sites.buffer, b"%d.fits" % number, b"light")
        os.utime(path, (0, 1_000_000 + number))
    assert carry_all(sites) == 0
    query = """
        SELECT path FROM files JOIN history ON file_id = files.id
        WHERE target = 'sending' ORDER BY at, history.batch_id
    """
    carried = [path for (path,) in rows(sites, query)]
    expected = [b"%d.fits" % number for number in range(5)]
    assert carried == (expected if order == "oldest" else expected[::-1])


def test_a_batch_holds_no_more_files_than_chunk_size(sites: Sites) -> None:
    sites.write_config(general={"chunk_size": 3, "num_threads": 1})
    for number in range(10):
        write_file(sites.buffer, b"%d.fits" % number, b"light")
    assert carry_all(sites) == 0
    assert sent(sites) == [3, 3, 3, 1]


def test_a_batch_holds_no_more_bytes_than_batch_bytes_but_one_file_at_least(sites: Sites) -> None:
    sites.write_config(general={"batch_bytes": "250kB", "num_threads": 1})
    for number in range(5):
        path = write_file(sites.buffer, b"%d.fits" % number, bytes(900_000 if number == 0 else 100_000))
        os.utime(path, (0, number))
    assert carry_all(sites) == 0
    assert sent(sites) == [1, 2, 2]


def test_huge_files_hold_up_no_small_ones(sites: Sites) -> None:
    """As many of them as there are workers: one worker is kept free of them."""
    sites.write_config(general={"bandwidth": "600kB/s", "num_threads": 3, "batch_bytes": "1MB"})
    for number in range(3):
        path = write_file(sites.buffer, b"huge-%d.fits" % number, bytes(12_000_000))
        os.utime(path, (0, number))
    with Run(sites):
        eventually(lambda: counts(sites).get("sending") == 2)
        for number in range(20):
            write_file(sites.buffer, b"small-%d.fits" % number, b"light")
            eventually(lambda: counts(sites).get("held") == number + 1)  # noqa: B023 - called at once
        assert counts(sites) == {"sending": 2, "found": 1, "held": 20}


def test_what_is_excluded_stays_where_it_is(sites: Sites) -> None:
    sites.write_config(general={"exclude_list": [r"\.tmp$", r"^scratch/", r"x\udcff"]})
    for path in (b"a.fits", b"a.fits.tmp", b"scratch/b.fits", b"not/scratch/c.fits", b"x\xff.fits"):
        write_file(sites.buffer, path, path)
    assert carry_all(sites) == 0
    assert set(files_below(sites.endpoint_buffer)) == {b"a.fits", b"not/scratch/c.fits"}
    assert set(files_below(sites.buffer)) == {b"a.fits.tmp", b"scratch/b.fits", b"x\xff.fits"}
    assert states(sites, b"a.fits.tmp") == []


def test_temporary_files_are_excluded_unless_told_otherwise(sites: Sites) -> None:
    write_file(sites.buffer, b"a.tmp", b"a")
    sites.write_config()
    assert carry_all(sites) == 0
    assert counts(sites) == {}
    sites.write_config(general={"exclude_list": []})
    assert carry_all(sites) == 0
    assert counts(sites) == {"held": 1}


def test_what_is_no_regular_file_is_told_once_and_left_alone(sites: Sites) -> None:
    sites.write_config()
    elsewhere = sites.directory / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret.fits").write_bytes(b"not in the buffer")
    (sites.buffer / "link.fits").symlink_to(elsewhere / "secret.fits")
    (sites.buffer / "directory").symlink_to(elsewhere)
    os.mkfifo(sites.buffer / "pipe.fits")
    with socket.socket(socket.AF_UNIX) as listener, Run(sites) as manager:
        # The name of a socket may be no longer than 108 bytes.
        here = os.open(sites.buffer, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        write_file(sites.buffer, b"good.fits", b"good")
        eventually(lambda: counts(sites) == {"held": 1})
        time.sleep(1.5)
        odd = {
            "link.fits": "symbolic link",
            "directory": "symbolic link",
            "pipe.fits": "fifo",
            "socket": "socket",
        }
        for name, kind in odd.items():
            assert manager.said.count(f"{name}: left alone, it is a {kind}") == 1
    assert files_below(sites.endpoint_buffer) == {b"good.fits": b"good"}
    assert sorted(os.listdir(sites.buffer)) == sorted(odd)
