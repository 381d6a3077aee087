"""One conformance suite for every transport, run with the real programs over a real sshd."""

import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from common.errors import Failure, Scope
from common.process import Background, run
from common.remote import Remote
from common.transport import Command, Limits, Rsync, Scp, Sent, Transport
from handoff.stream import Stream
from tests.loopback import REPOSITORY, Sshd, files_below, write_file

NO_LIMITS = Limits()
OLD = 1_600_000_000

HOSTILE = (
    b"plain.fits",
    b"empty",
    b"a space",
    b" leading and trailing ",
    b"'single' \"double\"",
    b"new\nline\n",
    b"$(touch injected) `touch injected` ; touch injected &",
    b"*?[a-z]{a,b}~!#%^",
    b"#comment",
    b";comment",
    b"-rf",
    b"--delete",
    b"host:path",
    b":colon",
    b"back\\slash\\#012",
    b"tab\tcarriage\rbell\x07",
    b"not utf-8 \xff\xfe",
    "Ünïcödé 天文".encode(),
    b"n" * 255,
    b"{file} {dest} {batch}",
    b"deep/" * 40 + b"file",
    b"a directory/with 'quotes'/and\nnewline/-x",
    b"-d/--e",
    b"~/x",
)


def make_rsync(remote: Remote, limits: Limits) -> Transport:
    return Rsync(remote, limits)


def make_unchecked_rsync(remote: Remote, limits: Limits) -> Transport:
    return Rsync(remote, limits, unchecked=True)


def make_scp(remote: Remote, limits: Limits) -> Transport:
    return Scp(remote, limits)


def make_stream(remote: Remote, limits: Limits) -> Transport:
    return Stream(remote, limits, "sha256")


def make_file_command(remote: Remote, limits: Limits) -> Transport:
    return Command("scp -p -B -F {config} {file} {host}:{dest}", with_config(remote), limits)


def make_batch_command(remote: Remote, limits: Limits) -> Transport:
    return Command("scp -p -B -F {config} {batch} {host}:{dest}/", with_config(remote), limits)


def with_config(remote: Remote) -> Remote:
    """With what `commands` needs as further keys of `endpoint`."""
    parameters = {"config": str(remote.config), "host": remote.site.host}
    remote.site = replace(remote.site, parameters=parameters)
    return remote


Make = Callable[[Remote, Limits], Transport]
BUILT_IN: tuple[Make, ...] = (make_rsync, make_scp, make_stream)
OWN: tuple[Make, ...] = (make_file_command, make_batch_command)


@pytest.fixture(params=[*BUILT_IN, *OWN], ids=["rsync", "scp", "stream", "command-file", "command-batch"])
def make(request: pytest.FixtureRequest) -> Make:
    chosen: Make = request.param
    return chosen


@dataclass(frozen=True)
class Place:
    """A buffer here, a staging there."""

    root: Path
    staging: Path
    runtime: Path

    @property
    def dest(self) -> bytes:
        return os.fsencode(self.staging / "batch-1")

    def write(self, paths: Sequence[bytes], content: bytes = b"") -> list[bytes]:
        for path in paths:
            write_file(self.root, path, content or b"content of " + path)
        return list(paths)

    def send(
        self, transport: Transport, paths: Sequence[bytes], *, progress: Callable[[int], None] | None = None
    ) -> Sent:
        return transport.send(os.fsencode(self.root), paths, self.dest, progress=progress)

    def arrived(self, sent: Sent) -> dict[bytes, bytes]:
        """What is at the endpoint, by the paths that the files have here."""
        return {
            name_here(sent, path): content for path, content in files_below(self.staging / "batch-1").items()
        }


def name_here(sent: Sent, path: bytes) -> bytes:
    if sent.layout == "tree":
        return path
    number, _, name = path.partition(b"/")
    return os.path.join(sent.directories[int(number)], name)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("buffer", "staging", "run"):
        (tmp_path / name).mkdir()
    return Place(tmp_path / "buffer", tmp_path / "staging", tmp_path / "run")


@pytest.fixture
def remote(sshd: Sshd, place: Place) -> Iterator[Remote]:
    with Remote(sshd.site(), place.runtime, "w0") as remote:
        yield remote


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    """One that may be stopped, paused and re-keyed."""
    with Sshd(tmp_path / "sshd") as server:
        yield server


@contextmanager
def endpoint(directory: Path, place: Place, **options: object) -> Iterator[Remote]:
    """An endpoint of its own kind."""
    with (
        Sshd(directory / "sshd", **options) as server,  # type: ignore[arg-type]
        Remote(server.site(), place.runtime, "w0") as remote,
    ):
        yield remote


def is_blamed(make: Make, sent: Sent, cause: str) -> bool:
    """Whether the endpoint is, for this cause; rsync at times loses the words of the one that runs there."""
    causes = {cause, "rsync failed at the endpoint"} if make is make_rsync else {cause}
    found = kind(sent.failure)
    return found is not None and found[0] is Scope.ENDPOINT and found[1] in causes


def kind(failure: Failure | None) -> tuple[Scope, str] | None:
    return (failure.scope, failure.cause) if failure else None


# What every transport does


def test_files_of_any_name_arrive_intact(make: Make, place: Place, remote: Remote) -> None:
    paths = place.write(HOSTILE)
    write_file(place.root, b"empty")
    sent = place.send(make(remote, NO_LIMITS), paths)
    assert kind(sent.failure) is None
    assert sent.failures == {}
    assert place.arrived(sent) == files_below(place.root)
    assert not list(place.root.parent.rglob("injected"))


def test_modes_and_times_arrive(make: Make, place: Place, remote: Remote) -> None:
    for number, mode in enumerate((0o400, 0o444, 0o600, 0o644, 0o755)):
        path = write_file(place.root, b"night/%o" % mode, b"x", mode=mode)
        os.utime(path, (OLD + number, OLD + number))
    paths = [b"night/%o" % mode for mode in (0o400, 0o444, 0o600, 0o644, 0o755)]
    sent = place.send(make(remote, NO_LIMITS), paths)
    assert facts(place.staging / "batch-1") == facts(place.root)
    assert sent.bytes == 5


def facts(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        path.name: (stat.S_IMODE(path.stat().st_mode), int(path.stat().st_mtime))
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_only_the_named_files_arrive(make: Make, place: Place, remote: Remote) -> None:
    place.write([b"a", b"b", b"d/a", b"d/b"])
    sent = place.send(make(remote, NO_LIMITS), [b"b", b"d/a"])
    assert sorted(place.arrived(sent)) == [b"b", b"d/a"]


def test_nothing_to_send_is_nothing_to_do(make: Make, place: Place, remote: Remote) -> None:
    assert place.send(make(remote, NO_LIMITS), []) == Sent()
    assert list(place.staging.iterdir()) == []


def test_a_file_that_vanished_does_not_stop_the_others(make: Make, place: Place, remote: Remote) -> None:
    place.write([b"a", b"d/b"])
    sent = place.send(make(remote, NO_LIMITS), [b"a", b"d/gone", b"gone/c", b"d/b"])
    assert {path: kind(failure) for path, failure in sent.failures.items()} == {
        b"d/gone": (Scope.FILE, "file vanished"),
        b"gone/c": (Scope.FILE, "file vanished"),
    }
    assert sorted(place.arrived(sent)) == [b"a", b"d/b"]


def test_what_is_no_regular_file_is_neither_sent_nor_followed(
    make: Make, place: Place, remote: Remote
) -> None:
    place.write([b"a", b"target"])
    (place.root / "link").symlink_to("target")
    (place.root / "directory").mkdir()
    os.mkfifo(place.root / "fifo")
    names = [b"link", b"directory", b"fifo"]
    sent = place.send(make(remote, NO_LIMITS), [*names, b"a"])
    assert {path: kind(failure) for path, failure in sent.failures.items()} == dict.fromkeys(
        names, (Scope.FILE, "not a regular file")
    )
    assert sorted(place.arrived(sent)) == [b"a"]


def test_an_unreadable_file_does_not_stop_the_others(make: Make, place: Place, sshd: Sshd) -> None:
    """In a child, since root can read everything unless it gives up the power to."""
    place.write([b"a", b"secret", b"z"])
    (place.root / "secret").chmod(0)
    program = (
        "import os; from pathlib import Path; from common.remote import Remote, Site\n"
        "from tests.integration.test_transport import *\n"
        f"with Remote({sshd.site()!r}, Path({str(place.runtime)!r}), 'w0') as remote:\n"
        f"    sent = {make.__name__}(remote, NO_LIMITS).send("
        f"{os.fsencode(place.root)!r}, [b'a', b'secret', b'z'], {place.dest!r})\n"
        "    print({path: failure.cause for path, failure in sent.failures.items()}, sent.failure)"
    )
    lost = "-dac_override,-dac_read_search"
    powerless = ["setpriv", f"--bounding-set={lost}", f"--inh-caps={lost}"] if os.geteuid() == 0 else []
    done = run([*powerless, sys.executable, "-c", program], cwd=REPOSITORY)
    assert (done.stdout, done.last_words) == (b"{b'secret': \"can't be read\"} None\n", "")
    assert set(files_below(place.staging).values()) == {b"content of a", b"content of z"}


def test_what_a_broken_attempt_left_does_no_harm(make: Make, place: Place, remote: Remote) -> None:
    paths = place.write([b"a", b"d/b"], b"whole content")
    transport = make(remote, NO_LIMITS)
    sent = place.send(transport, paths)
    for path in (place.staging / "batch-1").rglob("*"):
        if path.is_file():
            path.write_bytes(b"half")
    assert place.arrived(place.send(transport, paths)) == {b"a": b"whole content", b"d/b": b"whole content"}
    assert kind(sent.failure) is None


@pytest.mark.parametrize("make", BUILT_IN, ids=["rsync", "scp", "stream"])
def test_the_kept_connection_is_used(make: Make, place: Place, remote: Remote, sshd: Sshd) -> None:
    remote.run_script("true")
    before = sshd.log.read_text().count("Accepted publickey")
    place.send(make(remote, NO_LIMITS), place.write([b"a", b"d/b"]))
    assert sshd.log.read_text().count("Accepted publickey") == before


def test_nothing_is_left_on_this_side(make: Make, place: Place, remote: Remote) -> None:
    # ssh makes its socket under another name first: of a connection that has served, that is gone.
    remote.run_script("true")
    before = sorted(path.name for path in place.runtime.rglob("*"))
    place.send(make(remote, NO_LIMITS), place.write([b"a", b"d/b"]))
    assert sorted(path.name for path in place.runtime.rglob("*")) == before
    assert sorted(files_below(place.root)) == [b"a", b"d/b"]


def test_staging_may_have_any_name(make: Make, place: Place, remote: Remote) -> None:
    odd = Place(place.root, place.root.parent / "it's $(touch injected) é *", place.runtime)
    odd.staging.mkdir()
    sent = odd.send(make(remote, NO_LIMITS), odd.write([b"a", b"d/b"]))
    assert kind(sent.failure) is None
    assert sorted(odd.arrived(sent)) == [b"a", b"d/b"]


def test_progress_is_told(make: Make, place: Place, remote: Remote) -> None:
    told: list[int] = []
    paths = place.write([b"a/%d" % number for number in range(4)], bytes(500_000))
    sent = place.send(make(remote, Limits(bandwidth=2_000_000)), paths, progress=told.append)
    assert sent.bytes == 2_000_000
    if make in BUILT_IN:
        assert told == sorted(told)
        assert 500_000 < told[-1] < 2_500_000


def test_rsync_may_leave_the_checking_to_the_digest(place: Place, remote: Remote) -> None:
    sent = place.send(make_unchecked_rsync(remote, NO_LIMITS), place.write(HOSTILE))
    assert kind(sent.failure) is None
    assert place.arrived(sent) == files_below(place.root)


# Whose fault it is


def test_a_refused_connection_is_the_roads_fault(make: Make, place: Place, own_sshd: Sshd) -> None:
    paths = place.write([b"a"])
    with Remote(own_sshd.site(), place.runtime, "w0") as remote:
        own_sshd.stop()
        sent = place.send(make(remote, NO_LIMITS), paths)
        assert kind(sent.failure) == (Scope.CONNECTION, "connection refused")
        own_sshd.start()
        assert kind(place.send(make(remote, NO_LIMITS), paths).failure) is None


def test_a_changed_host_key_is_the_roads_fault(make: Make, place: Place, own_sshd: Sshd) -> None:
    own_sshd.renew_host_key()
    own_sshd.stop()
    own_sshd.start()
    with Remote(own_sshd.site(), place.runtime, "w0") as remote:
        sent = place.send(make(remote, NO_LIMITS), place.write([b"a"]))
    assert kind(sent.failure) == (Scope.CONNECTION, "host key changed")


def test_a_missing_staging_is_the_endpoints_fault(make: Make, place: Place, remote: Remote) -> None:
    shutil.rmtree(place.staging)
    place.staging.write_text("not a directory")
    sent = place.send(make(remote, NO_LIMITS), place.write([b"a", b"d/b"]))
    assert sent.failure is not None
    assert sent.failure.scope is Scope.ENDPOINT
    assert sent.failures == {}


@pytest.mark.parametrize("made_before", [False, True])
def test_a_directory_that_cannot_be_written_is_the_endpoints_fault(
    made_before: bool, make: Make, place: Place, tmp_path: Path
) -> None:
    locked = place.staging
    if made_before:
        locked = place.staging / "batch-1"
        for name in ("0", "1"):
            (locked / name).mkdir(parents=True)
            (locked / name).chmod(0o555)
    locked.chmod(0o555)
    with endpoint(tmp_path, place, powerless=True) as remote:
        sent = place.send(make(remote, NO_LIMITS), place.write([b"a", b"d/b"]))
    for path in (place.staging, *place.staging.rglob("*")):
        path.chmod(0o755)
    assert sent.failures == {} or make in OWN
    if make in BUILT_IN or not made_before:
        assert is_blamed(make, sent, "endpoint not writable")


def test_a_full_disk_is_the_endpoints_fault(make: Make, place: Place, tmp_path: Path) -> None:
    mounted = run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place.staging)])
    if mounted.exit_code != 0:
        pytest.skip(f"no small filesystem to be had here: {mounted.last_words}")
    try:
        # An sshd that began before may live among other mounts than this process.
        with endpoint(tmp_path, place) as remote:
            paths = place.write([b"a", b"b", b"c"], os.urandom(600_000))
            sent = place.send(make(remote, NO_LIMITS), paths)
            assert is_blamed(make, sent, "endpoint full")
            run(["find", str(place.staging), "-mindepth", "1", "-delete"])
            assert kind(place.send(make(remote, NO_LIMITS), paths[:1]).failure) is None
    finally:
        run(["umount", str(place.staging)])


def test_an_unusable_runtime_directory_is_this_sites_fault(make: Make, place: Place, remote: Remote) -> None:
    place.runtime.rmdir()
    place.runtime.write_text("somebody's file")
    sent = place.send(make(remote, NO_LIMITS), place.write([b"a"]))
    assert kind(sent.failure) == (Scope.HANDOFF, "runtime directory unusable")
    place.runtime.unlink()


@pytest.mark.parametrize("make", [make_rsync, make_scp], ids=["rsync", "scp"])
def test_a_login_shell_that_prints_is_the_endpoints_fault(make: Make, place: Place, tmp_path: Path) -> None:
    with endpoint(tmp_path, place, noise=b"Welcome to this fine system\n") as remote:
        sent = place.send(make(remote, NO_LIMITS), place.write([b"a"]))
    assert kind(sent.failure) == (Scope.ENDPOINT, "login shell prints")


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/usr/bin/csh", "/usr/bin/fish"])
def test_an_endpoint_without_rsync_is_told(shell: str, place: Place, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    with endpoint(tmp_path, place, shell=f"env PATH={tmp_path}/bin {shell}") as remote:
        sent = place.send(Rsync(remote, NO_LIMITS), place.write([b"a"]))
    assert kind(sent.failure) == (Scope.ENDPOINT, "program missing at the endpoint")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("kill -9 $$", "rsync: connection unexpectedly closed (0 bytes received so far) [sender]"),
        ("echo 'rsync: --inplace: unknown option' >&2; exit 1", "rsync: --inplace: unknown option"),
    ],
)
def test_an_rsync_that_fails_at_the_endpoint_is_no_files_fault(
    script: str, expected: str, place: Place, tmp_path: Path
) -> None:
    stand_in = write_program(tmp_path / "bin" / "rsync", script)
    with endpoint(tmp_path, place, shell=f"env PATH={stand_in.parent}:/usr/bin:/bin /bin/sh") as remote:
        sent = place.send(Rsync(remote, NO_LIMITS), place.write([b"a"]))
    assert kind(sent.failure) == (Scope.ENDPOINT, "rsync failed at the endpoint")
    assert sent.error == expected
    assert sent.failure is not None
    assert sent.failure.hint


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ('rsync: mkstemp "/s/.a.Xy" failed: No space left on device (28)', "endpoint full"),
        ('rsync: write failed on "/s/a": Disk quota exceeded (122)', "endpoint over quota"),
        (
            'rsync: [generator] recv_generator: mkdir "/s/d" failed: Permission denied (13)',
            "endpoint not writable",
        ),
    ],
)
def test_the_words_of_rsyncs_old_and_new_are_understood(
    script: str, cause: str, place: Place, tmp_path: Path
) -> None:
    stand_in = write_program(tmp_path / "bin" / "rsync", f"echo '{script}' >&2; exit 11")
    with endpoint(tmp_path, place, shell=f"env PATH={stand_in.parent}:/usr/bin:/bin /bin/sh") as remote:
        sent = place.send(Rsync(remote, NO_LIMITS), place.write([b"a"]))
    assert (kind(sent.failure), sent.error) == ((Scope.ENDPOINT, cause), script)


def write_program(path: Path, script: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


# A transfer that is broken off


@pytest.mark.parametrize("make", BUILT_IN, ids=["rsync", "scp", "stream"])
def test_a_killed_connection_is_made_again_and_the_transfer_with_it(
    make: Make, place: Place, remote: Remote, sshd: Sshd
) -> None:
    paths = place.write([b"a", b"d/b"], os.urandom(1_000_000))
    remote.connect()
    (master,) = (child for child in psutil.Process().children() if "-M" in child.cmdline())
    begun = place.staging / "batch-1" / "a"
    with Background(["sh", "-c", f"until [ -s {begun} ]; do sleep 0.02; done; kill -9 {master.pid}"]):
        sent = place.send(make(remote, Limits(bandwidth=1_000_000)), paths)
    assert not psutil.pid_exists(master.pid)
    assert kind(sent.failure) is None
    assert place.arrived(sent) == files_below(place.root)


def test_a_connection_that_hangs_is_given_up(make: Make, place: Place, own_sshd: Sshd) -> None:
    with Remote(own_sshd.site(), place.runtime, "w0") as remote:
        remote.connect()
        transport = make(remote, Limits(stall_timeout=1.0))
        own_sshd.pause(connections=True)
        sent = place.send(transport, place.write([b"a"]))
        own_sshd.resume()
    assert kind(sent.failure) == (Scope.CONNECTION, "connection stalled")


@pytest.mark.parametrize("make", BUILT_IN, ids=["rsync", "scp", "stream"])
def test_a_slow_transfer_is_no_stalled_one(make: Make, place: Place, remote: Remote) -> None:
    limits = Limits(bandwidth=400_000, stall_timeout=1.2)
    sent = place.send(make(remote, limits), place.write([b"a"], os.urandom(1_000_000)))
    assert kind(sent.failure) is None


@pytest.mark.parametrize("make", BUILT_IN, ids=["rsync", "scp", "stream"])
def test_a_time_limit_leaves_what_has_arrived(make: Make, place: Place, remote: Remote) -> None:
    write_file(place.root, b"a-small", b"small")
    write_file(place.root, b"b-large", os.urandom(8_000_000))
    sent = place.send(make(remote, Limits(bandwidth=500_000, timeout=2)), [b"a-small", b"b-large"])
    assert kind(sent.failure) == (Scope.FILE, "transfer took too long")
    if make is make_rsync:  # whose order is known
        assert place.arrived(sent)[b"a-small"] == b"small"


@pytest.mark.parametrize("make", BUILT_IN, ids=["rsync", "scp", "stream"])
def test_the_bandwidth_is_kept(make: Make, place: Place, remote: Remote) -> None:
    remote.connect()
    began = time.monotonic()
    sent = place.send(make(remote, Limits(bandwidth=1_000_000)), place.write([b"a"], os.urandom(3_000_000)))
    assert kind(sent.failure) is None
    assert time.monotonic() - began > 1.5


# Commands of one's own: stand-ins of the name of the tool, on PATH


def send_with(
    tool: str, place: Place, sshd: Sshd, paths: Sequence[bytes], template: str, **limits: float
) -> str:
    """Send in a child that has the stand-in `bbcp` on its PATH; gives what it says of the outcome."""
    program = (
        "import os, sys; from pathlib import Path; from common.remote import Remote, Site\n"
        "from common.transport import Command, Limits\n"
        f"with Remote({sshd.site()!r}, Path({str(place.runtime)!r}), 'w0') as remote:\n"
        f"    sent = Command({template!r}, remote, Limits(**{limits!r})).send("
        f"{os.fsencode(place.root)!r}, eval(sys.stdin.read()), {place.dest!r})\n"
        "    for path, failure in [*sent.failures.items(), (None, sent.failure)]:\n"
        "        print(path, failure and (str(failure.scope), failure.cause, failure.reason))"
    )
    stand_in = write_program(place.root.parent / "bin" / "bbcp", tool)
    path = f"{stand_in.parent}:{os.environ['PATH']}"
    words = repr(list(paths)).encode()
    done = run([sys.executable, "-c", program], stdin=words, cwd=REPOSITORY, env={"PATH": path})
    return (done.stdout + done.stderr).decode()


COPY = 'for f do last=$f; done; while [ $# -gt 1 ]; do cp -p -- "$1" "${last#*:}"; shift; done'


def test_a_wrapped_tool_carries_files(place: Place, sshd: Sshd) -> None:
    paths = place.write([b"a b", b"d/c"])
    assert send_with(COPY, place, sshd, paths, "bbcp {batch} host:{dest}") == "None None\n"
    assert files_below(place.staging) == {
        b"batch-1/0/a b": b"content of a b",
        b"batch-1/1/c": b"content of d/c",
    }


def test_a_tool_that_fails_on_one_file_fails_that_file_alone(place: Place, sshd: Sshd) -> None:
    tool = f'case $1 in *bad) echo "bbcp: no luck" >&2; exit 4;; esac; {COPY}'
    said = send_with(tool, place, sshd, place.write([b"a", b"bad", b"c"]), "bbcp {file} host:{dest}")
    assert said == "b'bad' ('file', 'transfer command failed', 'bbcp: no luck')\nNone None\n"
    assert sorted(files_below(place.staging)) == [b"batch-1/0/a", b"batch-1/0/c"]


def test_a_tool_that_writes_half_and_dies_leaves_it_to_the_endpoint_to_tell(place: Place, sshd: Sshd) -> None:
    tool = 'for f do last=$f; done; head -c 3 "$1" > "${last#*:}/a"; kill -9 $$'
    said = send_with(tool, place, sshd, place.write([b"a", b"b"]), "bbcp {batch} host:{dest}")
    assert said == "None ('file', 'transfer was killed', 'ended by signal 9')\n"


def test_a_tool_that_cannot_connect_is_the_roads_fault(place: Place, sshd: Sshd) -> None:
    tool = "exec ssh -F /dev/null -p 1 127.0.0.1 true"
    said = send_with(tool, place, sshd, place.write([b"a", b"b"]), "bbcp {file} host:{dest}")
    assert said.startswith("None ('connection', 'connection refused', ")


def test_a_tool_that_finds_the_disk_full_is_the_endpoints_fault(place: Place, sshd: Sshd) -> None:
    tool = "head -c 9 /dev/zero > /dev/full"
    said = send_with(tool, place, sshd, place.write([b"a", b"b"]), "bbcp {file} host:{dest}")
    assert said.startswith("None ('endpoint', 'endpoint full', ")


def test_a_tool_that_hangs_is_killed(place: Place, sshd: Sshd) -> None:
    said = send_with(
        "sleep 60", place, sshd, place.write([b"a"]), "bbcp {file} host:{dest}", stall_timeout=0.8
    )
    assert said.startswith("None ('connection', 'connection stalled', 'bbcp moved no bytes")


def test_a_missing_tool_is_this_sites_fault(place: Place, sshd: Sshd) -> None:
    said = send_with("", place, sshd, place.write([b"a"]), "no-such-tool {file} host:{dest}")
    assert said == "None ('handoff', 'program missing', 'no-such-tool: not found')\n"


def test_a_directory_of_too_many_names_for_one_command_takes_several(place: Place, sshd: Sshd) -> None:
    paths = place.write([b"%03d" % number + b"x" * 240 for number in range(900)])
    tool = f"echo x >> {place.root.parent}/calls; {COPY.replace('cp -p --', ':')}"
    assert send_with(tool, place, sshd, paths, "bbcp {batch} host:{dest}") == "None None\n"
    assert 2 <= (place.root.parent / "calls").read_text().count("x") <= 9


def test_values_of_a_template_are_never_split_or_run(place: Place, sshd: Sshd) -> None:
    tool = f'printf "<%s>" "$@" > {place.root.parent}/words'
    send_with(tool, place, sshd, place.write([b"a $(id) 'b"]), "bbcp -o 'x y' '{file}:{dest}'")
    words = (place.root.parent / "words").read_text()
    assert words == f"<-o><x y><{place.root}/a $(id) 'b:{os.fsdecode(place.dest)}/0>"


# Facts that the built-in transports rest on


def test_rsync_is_told_nothing_that_old_ones_do_not_know(place: Place, sshd: Sshd, tmp_path: Path) -> None:
    """Every option is in the documentation of rsync 3.0.0, of 2008."""
    known = """--files-from --from0 --no-implied-dirs --perms --times --whole-file --inplace
        --protect-args --rsh --bwlimit --timeout"""
    log = tmp_path / "words"
    write_program(place.root.parent / "bin" / "rsync", f'printf "%s\\n" "$@" > {log}; exit 1')
    program = (
        "from pathlib import Path; from common.remote import Remote, Site\n"
        "from common.transport import Limits, Rsync\n"
        f"with Remote({sshd.site()!r}, Path({str(place.runtime)!r}), 'w0') as remote:\n"
        f"    Rsync(remote, Limits(10**6, 60, 60)).send({os.fsencode(place.root)!r}, [b'a'], {place.dest!r})"
    )
    place.write([b"a"])
    run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
    )
    assert set(re.findall(r"^--[a-z0-9-]+", log.read_text(), re.MULTILINE)) == set(known.split())
