"""The manager is killed at known points of a delivery, by stand-ins for the programs that it uses."""

import os
import shlex
import signal
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from inotify_simple import INotify, flags  # type: ignore[import-untyped]

from tests.loopback import Sites, Sshd, files_below, write_file
from tests.runs import Run, assert_delivered_once, counts, eventually, shut, stand_in

_FILES = {b"night/1.fits": os.urandom(700_000), b"a 'b'\n.fits": os.urandom(20_000), b"empty": b""}

# Kills the manager, whose number is in a file, the first time that it is called.
_STRIKE = """
directory=%s
strike() (
  if cd $directory && mkdir struck 2>/dev/null; then
    until [ -s pid ]; do sleep 0.01; done
    kill -9 "$(cat pid)"
  fi
)
"""


@dataclass(frozen=True, slots=True)
class Point:
    """A stand-in that kills, and what there is when it has."""

    program: str
    script: str
    far: bool = False
    """Whether it stands in for the endpoint's program, which goes on when the manager is dead."""
    state: str = "sending"
    placed: bool = False


_POINTS = {
    "looking around": Point(
        "cp",
        'case $3 in *.rehearsal-*) strike; sleep 0.5;; esac; exec "$real" "$@"',
        far=True,
        state="found",
    ),
    "hashed, nothing sent": Point("rsync", 'strike; exec "$real" "$@"'),
    "half sent": Point(
        "rsync",
        # A program in the background has no standard input of its own accord.
        """exec 3<&0
        "$real" "$@" <&3 &
        until [ "$(find "$directory/endpoint/staging" -type f -size +0)" ]; do sleep 0.01; done
        strike; wait""",
    ),
    "sent, not verified": Point("rsync", '"$real" "$@"; code=$?; strike; exit $code'),
    "being verified": Point(
        "openssl", '[ ! -e "$directory"/endpoint/staging/batch-* ] || strike; exec "$real" "$@"', far=True
    ),
    "verified, to be placed while the next one begins": Point(
        "cp", 'case $3 in */buffer/) strike; sleep 1;; esac; exec "$real" "$@"', far=True
    ),
    "placed, and nobody knows": Point(
        "cp", '"$real" "$@"; case $3 in */buffer/) strike;; esac', far=True, placed=True
    ),
}


@pytest.mark.parametrize("name", _POINTS)
def test_a_manager_that_is_killed_while_it_delivers_is_resumed(tmp_path: Path, name: str) -> None:
    point = _POINTS[name]
    directory = tmp_path / "sites"
    strike = _STRIKE % shlex.quote(str(directory))
    environment = stand_in(tmp_path / "bin", point.program, strike + point.script)
    with Sshd(tmp_path / "sshd", environment=environment if point.far else None) as sshd:
        sites = Sites(directory, sshd)
        sites.write_config(general={"bandwidth": "2MB/s"})
        for path, content in _FILES.items():
            write_file(sites.buffer, path, content)
        with Run(sites, env=None if point.far else environment) as run:
            (directory / "pid").write_text(str(run.process.pid))
            assert eventually(run.process.poll) == -signal.SIGKILL, run.said
        assert counts(sites) == {point.state: len(_FILES)}
        assert files_below(sites.endpoint_buffer) == (_FILES if point.placed else {})
        assert files_below(sites.holding) == {}
        _resume(sites)
        assert_delivered_once(sites, _FILES)


def test_a_killed_ssh_is_tried_again_and_the_endpoint_is_not_blamed(sites: Sites, tmp_path: Path) -> None:
    # The scp that comes with ssh starts that one, whatever is on PATH.
    struck = f"[ -e {sites.staging}/batch-* ] && mkdir {tmp_path}/struck"
    script = f'if {struck}; then kill -9 $$; fi; exec "$real" "$@"'
    sites.write_config(endpoint={"transfer": "scp"})
    write_file(sites.buffer, b"a", b"a")
    with Run(sites, "--once", env=stand_in(tmp_path / "bin", "ssh", script)) as run:
        assert run.process.wait(30) == 0, run.said
        assert "deliveries wait: ssh was killed: ssh was ended by signal 9" in run.said
    assert_delivered_once(sites, {b"a": b"a"})


# On the way to the holding area, where no program is started that could be stood in for.


def test_a_manager_that_is_killed_before_it_moves_a_file_moves_it_when_it_is_back(sites: Sites) -> None:
    taken = _take_name_in_holding(sites)
    with Run(sites) as run, shut(taken):
        eventually(lambda: counts(sites) == {"holding": 1})
        run.kill()
    assert list(files_below(sites.buffer)) == [b"a.fits"]
    _resume(sites)
    _assert_held_beside(sites)


def test_a_manager_that_is_killed_after_it_moved_a_file_finds_it_held_when_it_is_back(sites: Sites) -> None:
    taken = _take_name_in_holding(sites)
    with Run(sites) as run, closing(sqlite3.connect(sites.ledger, isolation_level=None)) as another:
        with shut(taken):
            eventually(lambda: counts(sites) == {"holding": 1})
            # From now on the manager can't write down what its worker does.
            another.execute("BEGIN IMMEDIATE")
        eventually(lambda: not files_below(sites.buffer))
        run.kill()
    assert counts(sites) == {"holding": 1}
    _resume(sites)
    _assert_held_beside(sites)


def test_a_copy_to_a_holding_area_on_another_filesystem_is_begun_again(sites: Sites) -> None:
    with TemporaryDirectory(dir="/dev/shm") as directory, INotify() as events:
        sites.holding = Path(directory)
        assert sites.holding.stat().st_dev != sites.buffer.stat().st_dev
        events.add_watch(directory, flags.CREATE)
        sites.write_config()
        written = {b"large.fits": os.urandom(40_000_000)}
        write_file(sites.buffer, b"large.fits", written[b"large.fits"])
        with Run(sites) as run:
            assert events.read(timeout=20_000), run.said
            run.kill()
        assert [path.suffix for path in sites.holding.iterdir()] == [".part"]
        assert files_below(sites.buffer) == written
        _resume(sites)
        assert_delivered_once(sites, written)


def _resume(sites: Sites) -> None:
    with Run(sites, "--once") as run:
        assert run.process.wait(30) == 0, run.said


def _take_name_in_holding(sites: Sites) -> bytes:
    """A file to be delivered, and one of its name and size that is in the holding area already."""
    sites.write_config()
    write_file(sites.buffer, b"a.fits", b"new content")
    return write_file(sites.holding, b"a.fits", b"old content")


def _assert_held_beside(sites: Sites) -> None:
    beside = b"a.fits." + sha256(b"new content").hexdigest()[:12].encode()
    assert files_below(sites.holding) == {b"a.fits": b"old content", beside: b"new content"}
    assert files_below(sites.endpoint_buffer) == {b"a.fits": b"new content"}
    assert files_below(sites.buffer) == {}
    assert counts(sites) == {"held": 1}
