"""The manager is killed at known points of a delivery, by stand-ins for the programs that it uses."""

import os
import shlex
import signal
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.loopback import Sites, Sshd, files_below, write_file
from tests.runs import Run, assert_delivered_once, counts, digests, eventually, holding_elsewhere, stand_in

_FILES = {b"night/1.fits": os.urandom(700_000), b"a 'b'\n.fits": os.urandom(20_000), b"empty": b""}
_LARGE = {b"night/1.fits": os.urandom(5_000_000), b"a 'b'\n.fits": os.urandom(2_000_000)}

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
    files: Mapping[bytes, bytes] = field(default_factory=lambda: _FILES)


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
    "half streamed": Point(
        "tar",
        """case $1 in -x) [ -e "$directory/struck" ] || head -c 500000 | "$real" "$@"; strike;; esac
        exec "$real" "$@" """,
        far=True,
        files=_LARGE,
    ),
    "sent, not verified": Point("rsync", '"$real" "$@"; code=$?; strike; exit $code'),
    "being verified": Point(
        "openssl",
        'if [ -e "$directory"/endpoint/staging/batch-* ]; then strike; sleep 0.5; fi; exec "$real" "$@"',
        far=True,
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
        transfer = "rsync" if point.program == "rsync" else "auto"
        sites.write_config(endpoint={"transfer": transfer}, general={"bandwidth": "2MB/s"})
        for path, content in point.files.items():
            write_file(sites.buffer, path, content)
        with Run(sites, env=None if point.far else environment) as run:
            (directory / "pid").write_text(str(run.process.pid))
            assert eventually(run.process.poll) == -signal.SIGKILL, run.said
        assert counts(sites) == {point.state: len(point.files)}
        assert files_below(sites.endpoint_buffer) == (point.files if point.placed else {})
        assert files_below(sites.holding) == {}
        _resume(sites)
        assert_delivered_once(sites, point.files)


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


# On the way to the holding area no program is started that could be stood in for; but a copy takes its time.


def test_a_copy_to_another_filesystem_that_broke_off_is_made_anew(sites: Sites) -> None:
    with holding_elsewhere(sites) as copying:
        written = _write_large(sites)
        with Run(sites) as run:
            assert copying(), run.said
            run.kill()
        assert [path.suffix for path in sites.holding.iterdir()] == [".part"]
        assert digests(files_below(sites.buffer)) == digests(written)
        _resume(sites)
        assert_delivered_once(sites, written)


def test_a_file_that_was_moved_without_the_ledger_knowing_is_found_held(sites: Sites) -> None:
    with holding_elsewhere(sites) as copying:
        written = _write_large(sites)
        with Run(sites) as run, closing(sqlite3.connect(sites.ledger, isolation_level=None)) as another:
            assert copying(), run.said
            # From now on the manager can't write down what its worker does.
            another.execute("BEGIN IMMEDIATE")
            eventually(lambda: not files_below(sites.buffer))
            run.kill()
        assert counts(sites) == {"holding": 1}
        _resume(sites)
        assert_delivered_once(sites, written)


def _write_large(sites: Sites) -> dict[bytes, bytes]:
    sites.write_config()
    content = os.urandom(40_000_000)
    write_file(sites.buffer, b"large.fits", content)
    return {b"large.fits": content}


def _resume(sites: Sites) -> None:
    with Run(sites, "--once") as run:
        assert run.process.wait(30) == 0, run.said
