"""What only a stream does: it hashes what it sends, and keeps the files of a batch apart from each other."""

import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.errors import Scope
from common.files import checksum
from common.process import run
from common.remote import ENDPOINT_FULL, Remote
from common.transport import Limits, Sent
from handoff.stream import Stream
from tests.loopback import Sshd, files_below, write_file
from tests.troubles import disk

SECONDS = 2
"""How long the slow ones take."""


@dataclass(frozen=True)
class Ends:
    """A buffer here, the directory of a batch there, and the way between them."""

    buffer: Path
    batch: Path
    remote: Remote

    def send(self, paths: Sequence[bytes], change: Callable[[], object] | None = None) -> Sent:
        """Send files; so slowly that `change` comes in the middle of it, if there is any."""
        size = sum((self.buffer / os.fsdecode(path)).stat().st_size for path in paths)
        limits = Limits(bandwidth=size // SECONDS) if change else Limits()
        changes = [change] if change else []

        def progress(count: int) -> None:
            if changes and count > size // 4:
                changes.pop()()

        stream = Stream(self.remote, limits, "sha256")
        sent = stream.send(os.fsencode(self.buffer), paths, os.fsencode(self.batch), progress=progress)
        assert changes == []
        return sent

    @property
    def arrived(self) -> dict[bytes, bytes]:
        return files_below(self.batch)


@contextmanager
def joined(sshd: Sshd, directory: Path) -> Iterator[Ends]:
    for name in ("buffer", "staging", "run"):
        (directory / name).mkdir()
    with Remote(sshd.site(), directory / "run", "w0") as remote:
        yield Ends(directory / "buffer", directory / "staging" / "batch-1", remote)


@pytest.fixture
def ends(sshd: Sshd, tmp_path: Path) -> Iterator[Ends]:
    with joined(sshd, tmp_path) as ends:
        yield ends


def write(ends: Ends, **files: bytes) -> list[bytes]:
    """Files in the buffer, in their order."""
    for name, content in files.items():
        write_file(ends.buffer, name.encode(), content)
    return [name.encode() for name in files]


def test_every_file_is_hashed_as_it_is_sent(ends: Ends) -> None:
    paths = write(ends, large=os.urandom(5_000_000), empty=b"", small=b"light")
    sent = ends.send(paths)
    assert sent.failure is None
    assert sent.checksums == {
        path: checksum(os.path.join(os.fsencode(ends.buffer), path), "sha256")[0] for path in paths
    }
    assert ends.arrived == files_below(ends.buffer)


@pytest.mark.parametrize("change", ["truncate -s 1000 b", "printf more >>b", "rm b", "chmod 0 b"])
def test_a_file_that_changes_while_it_is_sent_leaves_the_others_whole(ends: Ends, change: str) -> None:
    """So many bytes as were announced come for it, whatever is in them."""
    contents = {name: os.urandom(600_000) for name in ("a", "b", "c")}
    paths = write(ends, **contents)
    sent = ends.send(paths, lambda: run(["sh", "-c", change], cwd=ends.buffer))
    assert sent.failure is None
    assert len(ends.arrived[b"b"]) == 600_000
    assert (ends.arrived[b"a"], ends.arrived[b"c"]) == (contents["a"], contents["c"])


def test_a_file_that_is_gone_before_its_turn_is_told_and_leaves_the_others_whole(ends: Ends) -> None:
    contents = {name: os.urandom(600_000) for name in ("a", "b", "c")}
    paths = write(ends, **contents)
    sent = ends.send(paths, (ends.buffer / "c").unlink)
    assert {path: failure.cause for path, failure in sent.failures.items()} == {b"c": "file vanished"}
    assert set(sent.checksums) == {b"a", b"b"}
    assert (ends.arrived[b"a"], ends.arrived[b"b"]) == (contents["a"], contents["b"])


def test_a_name_that_cannot_be_had_is_told_and_leaves_the_others_whole(ends: Ends) -> None:
    paths = write(ends, a=os.urandom(100_000), b=os.urandom(100_000), c=os.urandom(100_000))
    (ends.batch / "b" / "in the way").mkdir(parents=True)
    sent = ends.send(paths)
    assert sent.failure is not None
    assert (sent.failure.scope, sent.failure.cause) == (Scope.FILE, "transfer incomplete")
    assert "./b" in sent.failure.reason
    assert ends.arrived == {path: files_below(ends.buffer)[path] for path in (b"a", b"c")}


@pytest.mark.parametrize("time_ns", [-1_500_000_000, -1, 0, 1, 1_700_000_000_123_456_789])
def test_times_arrive_to_the_nanosecond(ends: Ends, time_ns: int) -> None:
    paths = write(ends, a=b"light")
    os.utime(ends.buffer / "a", ns=(time_ns, time_ns))
    assert ends.send(paths).failure is None
    assert (ends.batch / "a").stat().st_mtime_ns == time_ns


@pytest.mark.parametrize("mode", [0o400, 0o1644, 0o2755, 0o4755])
def test_all_bits_of_the_mode_arrive(ends: Ends, mode: int) -> None:
    paths = write(ends, a=b"light")
    os.chmod(ends.buffer / "a", mode)
    assert ends.send(paths).failure is None
    assert stat.S_IMODE((ends.batch / "a").stat().st_mode) == mode


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 262_143, 262_144, 2_097_152, 2_097_153])
def test_contents_of_all_sizes_arrive_beside_each_other(ends: Ends, size: int) -> None:
    """Those of large files begin at a page of the archive, and small ones are gathered."""
    contents = {name: os.urandom(count) for name, count in (("a", 1), ("b", size), ("c", 513), ("d", size))}
    assert ends.send(write(ends, **contents)).failure is None
    assert ends.arrived == {name.encode(): content for name, content in contents.items()}


@pytest.mark.parametrize("name", [b"\xe9" * 100, "\u00e9".encode() * 100, b"d" * 99 + b"/" + b"\n" * 200])
def test_names_that_are_longer_than_a_header_of_tar_arrive_as_they_are(ends: Ends, name: bytes) -> None:
    write_file(ends.buffer, name, b"light")
    assert ends.send([name]).failure is None
    assert ends.arrived == {name: b"light"}


def test_a_time_that_cannot_be_set_hides_no_greater_trouble(tmp_path: Path) -> None:
    shell = _with_tar_that_says(tmp_path, "tar: ./a: Cannot utime: Operation not permitted")
    with Sshd(tmp_path / "sshd", shell=shell) as sshd, joined(sshd, tmp_path) as ends:
        (ends.batch / "b" / "in the way").mkdir(parents=True)
        failure = ends.send(write(ends, a=b"light", b=b"light")).failure
        assert failure is not None
        assert "./b" in failure.reason


def test_words_of_tar_in_a_name_are_not_taken_for_tars(tmp_path: Path) -> None:
    """That nothing can be written would be the whole endpoint's trouble."""
    shell = _with_tar_that_says(tmp_path, "tar: ./a: Cannot write: b: Cannot open: File exists")
    with Sshd(tmp_path / "sshd", shell=shell) as sshd, joined(sshd, tmp_path) as ends:
        sent = ends.send(write(ends, a=os.urandom(300_000)))
        assert sent.failure is not None
        assert (sent.failure.scope, sent.failure.cause) == (Scope.FILE, "transfer incomplete")
        assert ends.arrived == files_below(ends.buffer)


@pytest.mark.usefixtures("disks")
def test_where_there_is_no_room_the_rest_is_not_sent(tmp_path: Path) -> None:
    gone = [0]
    with (
        Sshd(tmp_path / "sshd") as sshd,
        joined(sshd, tmp_path) as ends,
        disk(ends.batch.parent, "size=1m"),
    ):
        [path] = write(ends, a=os.urandom(20_000_000))
        stream = Stream(ends.remote, Limits(bandwidth=5_000_000), "sha256")
        sent = stream.send(os.fsencode(ends.buffer), [path], os.fsencode(ends.batch), progress=gone.append)
    assert sent.failure is not None
    assert (sent.failure.scope, sent.failure.cause) == (Scope.ENDPOINT, ENDPOINT_FULL)
    assert max(gone) < 15_000_000


def test_a_file_that_is_too_large_for_the_endpoint_is_no_trouble_of_the_others(tmp_path: Path) -> None:
    shell = tmp_path / "limited"
    shell.write_text("#!/bin/sh\ntrap '' XFSZ\nulimit -f 400\nexec /bin/sh \"$@\"\n")
    shell.chmod(0o755)
    with Sshd(tmp_path / "sshd", shell=str(shell)) as sshd, joined(sshd, tmp_path) as ends:
        sent = ends.send(write(ends, a=b"light", b=os.urandom(300_000)))
        assert sent.failure is not None
        assert (sent.failure.scope, sent.failure.cause) == (Scope.FILE, "transfer incomplete")
        assert "./b" in sent.failure.reason
        assert ends.arrived[b"a"] == b"light"


def test_options_of_tar_that_an_account_has_are_not_taken(tmp_path: Path) -> None:
    shell = "env TAR_OPTIONS=--exclude=./a /bin/sh"
    with Sshd(tmp_path / "sshd", shell=shell) as sshd, joined(sshd, tmp_path) as ends:
        assert ends.send(write(ends, a=b"light")).failure is None
        assert ends.arrived == files_below(ends.buffer)


def test_a_function_in_the_environment_is_not_taken_for_echo(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sh").symlink_to("/bin/bash")
    shell = f"env PATH={programs}:/usr/bin:/bin 'BASH_FUNC_echo%%=() {{ :; }}' bash"
    with Sshd(tmp_path / "sshd", shell=shell) as sshd, joined(sshd, tmp_path) as ends:
        assert ends.send(write(ends, a=b"light")).failure is None
        assert ends.arrived == files_below(ends.buffer)


def test_a_tar_that_is_gone_or_broken_is_the_endpoints_trouble(tmp_path: Path) -> None:
    """It is looked at again then, and files go another way."""
    shell = _with_tar_that_says(tmp_path, "tar: error while loading shared libraries", "exit 127")
    with Sshd(tmp_path / "sshd", shell=shell) as sshd, joined(sshd, tmp_path) as ends:
        failure = ends.send(write(ends, a=b"light")).failure
        assert failure is not None
        assert (failure.scope, failure.cause) == (Scope.ENDPOINT, "program missing at the endpoint")


@pytest.mark.parametrize("signal", ["HUP", "INT", "KILL", "TERM"])
def test_a_tar_that_somebody_kills_is_the_endpoints_trouble_and_not_the_files(
    tmp_path: Path, signal: str
) -> None:
    shell = _with_tar_that_says(tmp_path, "tar: at work", f"kill -{signal} $$; sleep 10")
    with Sshd(tmp_path / "sshd", shell=shell) as sshd, joined(sshd, tmp_path) as ends:
        failure = ends.send(write(ends, a=os.urandom(3_000_000))).failure
        assert failure is not None
        assert (failure.scope, failure.cause) == (Scope.ENDPOINT, "endpoint command killed")


def test_the_archive_comes_through_a_wide_pipe(tmp_path: Path) -> None:
    """Or sshd copies what it keeps for tar again and again."""
    width = f"{sys.executable} -c 'import fcntl; print(fcntl.fcntl(0, fcntl.F_GETPIPE_SZ))'"
    shell = _with_program(tmp_path, "tar", f'{width} >{tmp_path}/width; exec /bin/tar "$@"')
    with Sshd(tmp_path / "sshd", shell=shell) as sshd, joined(sshd, tmp_path) as ends:
        assert ends.send(write(ends, a=b"light")).failure is None
    assert int((tmp_path / "width").read_text()) == 1 << 20


def test_an_endpoint_without_perl_takes_files_all_the_same(tmp_path: Path) -> None:
    shell = _with_program(tmp_path, "perl", "echo 'perl: not found' >&2; exit 127")
    with Sshd(tmp_path / "sshd", shell=shell) as sshd, joined(sshd, tmp_path) as ends:
        assert ends.send(write(ends, a=os.urandom(3_000_000))).failure is None
        assert ends.arrived == files_below(ends.buffer)


def _with_tar_that_says(directory: Path, message: str, then: str = '/bin/tar "$@"; exit 2') -> str:
    """A shell whose tar says this, does its work if it can, and fails."""
    return _with_program(directory, "tar", f'echo "{message}" >&2; {then}')


def _with_program(directory: Path, name: str, text: str) -> str:
    """A shell for which a program is this script."""
    stand_in = directory / "bin" / name
    stand_in.parent.mkdir()
    stand_in.write_text(f"#!/bin/sh\n{text}\n")
    stand_in.chmod(0o755)
    return f"env PATH={stand_in.parent}:/usr/bin:/bin /bin/sh"
