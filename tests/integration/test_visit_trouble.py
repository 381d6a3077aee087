"""Whatever happens to a visit, the buffer never shows half a file, nor one that nobody will know of."""

import os
import shutil
from pathlib import Path

import pytest

from common.errors import RemoteError, Scope
from common.process import run
from common.remote import Remote, Site
from handoff.script import Patience
from tests.apart import apart, mount, own_namespaces
from tests.integration.visiting import BATCH, HOSTILE, PROGRAMS, SHELLS, Endpoint, Shell, stand_in, verdicts
from tests.loopback import Sshd

GOOD = {b"night/%d/%d.fits" % (number % 2, number): b"%d" % number * 1000 for number in range(10)}
POWERLESS = "setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-dac_override,-dac_read_search"


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_visit_that_is_killed_leaves_whole_files_and_can_be_repeated(
    tmp_path: Path, program: str, moment: str
) -> None:
    whole = tmp_path / "programs"
    for turn in range(4):
        kill = f'[ "$(wc -c <{tmp_path}/count)" -ne {turn} ] || kill -9 0'
        count = f"printf x >>{tmp_path}/count"
        body = f'{kill}\n{count}\nreal "$@"' if moment == "before" else f'real "$@"\n{kill}\n{count}'
        (tmp_path / "count").write_text("")
        endpoint = Endpoint(tmp_path / str(turn), Shell(environment=stand_in(whole, program, body)))
        expected = endpoint.stage(GOOD)
        try:
            endpoint.place(expected)
            killed = False
        except RemoteError:
            killed = True
        assert endpoint.arrived.items() <= GOOD.items()
        assert not endpoint.arrived or BATCH + b".jsonl" in endpoint.notes
        endpoint.remote, left = Shell(), tuple(endpoint.staged)
        again = {path for path, verdict in verdicts(endpoint.ask(expected)).items() if verdict == "missing"}
        assert again == set(GOOD) - set(endpoint.arrived)
        assert endpoint.survey().cleared == left
        endpoint.place(endpoint.stage(GOOD))
        assert endpoint.arrived == GOOD
        assert endpoint.staged == []
        assert set(endpoint.notes) == {BATCH + b".jsonl"}
        if not killed:
            break


@pytest.mark.parametrize("shell", SHELLS)
def test_of_input_that_is_cut_short_nothing_is_done(tmp_path: Path, shell: str) -> None:
    recorded = _Recorder()
    endpoint = Endpoint(tmp_path, recorded)
    expected = endpoint.stage(GOOD)
    with pytest.raises(RemoteError):
        endpoint.place(expected)
    script, data = recorded.heard[0]
    lengths = [*range(0, len(script), 311), *range(len(script), len(script + data), 47)]
    for length in lengths:
        run(
            [*shell.split(), "-c", f'eval "$(head -c {len(script)})"'],
            stdin=(script + data)[:length],
            cwd=tmp_path,
            timeout=10,
        )
        assert endpoint.arrived == {}
        assert endpoint.staged == [BATCH]
    assert not any(name.endswith(b".jsonl") for name in endpoint.notes)


def test_for_a_caller_who_has_gone_nothing_is_placed(tmp_path: Path) -> None:
    listener = tmp_path / "listener"
    leave = stand_in(tmp_path / "programs", "openssl", f'kill "$(cat {listener})"; sleep 0.2; real "$@"')
    listened = f"sh \"$@\" | sh -c 'echo $$ >{listener}; exec cat >/dev/null'"
    endpoint = Endpoint(tmp_path, Shell(["sh", "-c", listened, "sh"], environment=leave))
    expected = endpoint.stage(GOOD)
    with pytest.raises(RemoteError):
        endpoint.place(expected)
    assert endpoint.arrived == {}
    assert endpoint.staged == [BATCH]


@pytest.mark.parametrize("path", [":.", "", ".", "relative/bin::"])
def test_programs_among_the_files_are_never_run(tmp_path: Path, path: str) -> None:
    pwned = tmp_path / "pwned"
    program = f"#!/bin/sh\ntouch {pwned}\n".encode()
    names = [name.encode() for name in (*PROGRAMS, "sort", "nproc", "cat", "sleep", "date")]
    contents = dict.fromkeys(names, program) | {b"relative/bin/" + name: program for name in names}
    endpoint = Endpoint(tmp_path, Shell("/bin/sh", environment={"PATH": f"{path}:/usr/bin:/bin"}))
    expected = endpoint.stage(contents)
    for file in expected:
        os.chmod(os.path.join(endpoint.staging, BATCH, file.path), 0o755)
    assert verdicts(endpoint.place(expected).results) == dict.fromkeys(contents, "placed")
    assert verdicts(endpoint.ask(expected)) == dict.fromkeys(contents, "already")
    assert not pwned.exists()


def test_functions_in_the_environment_are_not_taken_for_programs(tmp_path: Path) -> None:
    # All but `head`, which is called before anything of ours can be read.
    names = {*PROGRAMS, "printf", "read", "cd", "["} - {"head"}
    functions = {f"BASH_FUNC_{name}%%": "() { echo stray; return 1; }" for name in names}
    endpoint = Endpoint(tmp_path, Shell("bash --posix", environment=functions))
    assert verdicts(endpoint.place(endpoint.stage(GOOD)).results) == dict.fromkeys(GOOD, "placed")


@pytest.mark.parametrize("message", ["Operation not permitted", "Operation not supported"])
def test_without_hard_links_files_are_renamed_into_place(tmp_path: Path, message: str) -> None:
    programs = tmp_path / "programs"
    refusal = f'echo "cannot create hard link: {message}" >&2; exit 1'
    for program in ("cp", "ln"):
        environment = stand_in(programs, program, refusal)
    taken = tmp_path / "buffer" / "night" / "0" / "4.fits"
    environment = stand_in(
        programs, "ln", f"mkdir -p {taken.parent}; [ -e {taken} ] || printf mine >{taken}; {refusal}"
    )
    endpoint = Endpoint(tmp_path, Shell(environment=environment))
    contents = GOOD | {name: name for name in HOSTILE}
    placement = endpoint.place(endpoint.stage(contents))
    assert verdicts(placement.results) == dict.fromkeys(contents, "placed") | {b"night/0/4.fits": "conflict"}
    assert endpoint.arrived == contents | {b"night/0/4.fits": b"mine"}
    assert endpoint.staged == []


def test_a_rename_never_turns_into_a_copy(tmp_path: Path) -> None:
    assert apart(_rename_across_filesystems, tmp_path) in (None, (["failed"], []))


def _rename_across_filesystems(directory: Path) -> tuple[list[str], list[str]] | None:
    refusal = "echo 'cannot create hard link: Operation not permitted' >&2; exit 1"
    for program in ("cp", "ln"):
        environment = stand_in(directory / "programs", program, refusal)
    endpoint = Endpoint(directory, Shell(environment=environment))
    if not own_namespaces() or not mount("tmpfs", directory / "buffer"):
        return None
    placement = endpoint.place(endpoint.stage({b"a": b"x", b"b": b"y"}))
    return sorted(set(verdicts(placement.results).values())), os.listdir(directory / "buffer")


def test_a_file_that_cannot_be_read_back_fails_alone(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path, _powerless())
    expected = endpoint.stage(GOOD | {b"closed": b"x"})
    os.chmod(os.path.join(endpoint.staging, BATCH, b"closed"), 0o200)
    placement = endpoint.place(expected)
    assert verdicts(placement.results) == dict.fromkeys(GOOD, "placed") | {b"closed": "failed"}
    failure = placement.results[b"closed"].failure
    assert failure is not None
    assert (failure.scope, failure.cause) == (Scope.FILE, "unreadable in staging")


def test_a_closed_directory_in_the_buffer_fails_its_own_files_alone(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path, _powerless())
    os.mkdir(os.path.join(endpoint.buffer, b"closed"), 0o555)
    placement = endpoint.place(endpoint.stage(GOOD | {b"closed/x": b"x", b"closed/new/y": b"y"}))
    assert verdicts(placement.results) == dict.fromkeys(GOOD, "placed") | {
        b"closed/x": "failed",
        b"closed/new/y": "failed",
    }
    failure = placement.results[b"closed/x"].failure
    assert failure is not None
    assert (failure.scope, failure.cause) == (Scope.FILE, "not placed")
    assert failure.reason.endswith("Permission denied")


def test_a_buffer_that_cannot_be_written_to_is_the_endpoint_s_failure(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path, _powerless())
    os.chmod(endpoint.buffer, 0o555)
    placement = endpoint.place(endpoint.stage(GOOD))
    causes = {
        result.failure and (result.failure.scope, result.failure.cause)
        for result in placement.results.values()
    }
    assert causes == {(Scope.ENDPOINT, "endpoint not writable")}
    assert endpoint.notes == {}


def test_a_buffer_that_is_gone_is_the_endpoint_s_failure(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path)
    os.rmdir(endpoint.buffer)
    with pytest.raises(
        RemoteError, match=r"the endpoint's buffer can't be entered: .*No such file"
    ) as caught:
        endpoint.place(endpoint.stage(GOOD))
    assert caught.value.failure.scope is Scope.ENDPOINT
    assert caught.value.failure.cause == "endpoint directory missing"


def test_a_staging_that_is_gone_is_the_endpoint_s_failure(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path)
    expected = endpoint.stage(GOOD)
    shutil.rmtree(endpoint.staging)
    with pytest.raises(RemoteError) as caught:
        endpoint.place(expected)
    assert caught.value.failure.scope is Scope.ENDPOINT
    assert caught.value.failure.cause == "endpoint directory missing"


def test_a_disk_that_will_not_hold_what_it_took_is_the_endpoint_s_failure(tmp_path: Path) -> None:
    body = "echo \"sync: error syncing 'x': Input/output error\" >&2; exit 1"
    endpoint = Endpoint(tmp_path, Shell(environment=stand_in(tmp_path / "programs", "sync", body)))
    with pytest.raises(RemoteError) as caught:
        endpoint.place(endpoint.stage(GOOD))
    assert caught.value.failure.cause == "endpoint disk trouble"
    assert endpoint.arrived == {}


@pytest.mark.parametrize("message", ["invalid option -- 'f'", "error syncing 'x': Invalid argument"])
def test_where_files_cannot_be_flushed_everything_is(tmp_path: Path, message: str) -> None:
    body = f'[ $# = 0 ] || {{ echo "sync: {message}" >&2; exit 1; }}\necho all >>{tmp_path}/flushed'
    endpoint = Endpoint(tmp_path, Shell(environment=stand_in(tmp_path / "programs", "sync", body)))
    assert verdicts(endpoint.place(endpoint.stage(GOOD)).results) == dict.fromkeys(GOOD, "placed")
    assert (tmp_path / "flushed").read_text() == "all\nall\n"


def test_a_long_silence_is_filled_with_signs_of_life(tmp_path: Path) -> None:
    environment = stand_in(tmp_path / "programs", "sync", f"mkdir {tmp_path}/once || exit 0; sleep 6")
    remote = Shell(environment=environment)
    endpoint = Endpoint(tmp_path, remote)
    assert verdicts(endpoint.place(endpoint.stage(GOOD)).results) == dict.fromkeys(GOOD, "placed")
    assert remote.visits[0].stdout.count(b"\0tick\0") == 1


def test_while_others_write_a_lot_only_our_own_files_are_flushed(tmp_path: Path) -> None:
    assert apart(_flushed_on_a_busy_machine, tmp_path) in (None, (len(GOOD) + 1, 5))


def _flushed_on_a_busy_machine(directory: Path) -> tuple[int, ...] | None:
    (directory / "meminfo").write_text("MemTotal: 9 kB\nDirty: 2000000 kB\nWriteback: 0 kB\n")
    busy = ["mount", "--bind", str(directory / "meminfo"), "/proc/meminfo"]
    if not own_namespaces() or run(busy).exit_code:
        return None
    body = f'echo "$#" >>{directory}/flushed\nreal "$@"'
    endpoint = Endpoint(directory, Shell(environment=stand_in(directory / "programs", "sync", body)))
    assert verdicts(endpoint.place(endpoint.stage(GOOD)).results) == dict.fromkeys(GOOD, "placed")
    # The files and their note; then the notes, the buffer, and the directories in it.
    return tuple(int(count) for count in (directory / "flushed").read_text().split())


def test_over_a_real_connection_it_is_all_the_same(tmp_path: Path, sshd: Sshd) -> None:
    site = Site(
        sshd.host,
        port=sshd.port,
        identity=str(sshd.identity),
        config=str(sshd.directory / "ssh_config"),
        options={
            "UserKnownHostsFile": str(sshd.known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
        },
    )
    patience = Patience(timeout=30)
    with Remote(site, tmp_path, "w") as remote:
        endpoint = Endpoint(tmp_path, remote)
        assert endpoint.survey(patience=patience).problems == ()
        contents = {name: name * 3 for name in HOSTILE} | {b"%d" % n: b"x" * n for n in range(500)}
        placement = endpoint.place(endpoint.stage(contents), patience=patience)
    assert verdicts(placement.results) == dict.fromkeys(contents, "placed")
    assert endpoint.arrived == contents


def test_a_full_disk_is_the_endpoint_s_failure(tmp_path: Path) -> None:
    assert apart(_place_on_a_full_disk, tmp_path) in (None, ("endpoint full", "endpoint", {}))


def _place_on_a_full_disk(directory: Path) -> tuple[str, str, dict[bytes, bytes]] | None:
    if not own_namespaces() or not mount("tmpfs", directory, "size=256k"):
        return None
    endpoint = Endpoint(directory)
    expected = endpoint.stage(GOOD)
    # Nothing is left, not even for the delivery note.
    with open(directory / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    try:
        endpoint.place(expected)
    except RemoteError as error:
        return error.failure.cause, error.failure.scope.value, endpoint.arrived
    return "no failure", "", endpoint.arrived


def _powerless() -> Shell:
    return Shell(f"{POWERLESS} sh" if os.geteuid() == 0 else "sh")


class _Recorder:
    """Hears what a script would be told, and says nothing."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, bytes]] = []

    def run_script(self, script: str, data: bytes = b"", **_: object) -> bytes:
        self.heard.append((os.fsencode(script), data))
        return b""
