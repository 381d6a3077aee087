"""`check` finds each fault by itself, says what to do, and leaves nothing behind."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.clock import now_ms
from common.ledger.ledger import Ledger
from common.ledger.lock import ManagerLock
from common.ledger.rows import ManagerRow
from handoff.lifecycle import LIFECYCLE
from tests.loopback import Sites, Sshd, files_below, write_file

Told = dict[str, list[tuple[str, str, str]]]


def _check(sites: Sites, *args: str, env: dict[str, str] | None = None) -> tuple[int, Told]:
    """The exit code, and by name each result's status, detail and hint."""
    done = sites.command("check", sites.config, "--json", *args, env=env)
    assert done.stderr == b""
    answer = json.loads(done.stdout)
    assert answer["version"] == 1
    told: Told = {}
    for result in answer["results"]:
        assert set(result) == {"name", "status", "detail", "hint"}
        told.setdefault(result["name"], []).append((result["status"], result["detail"], result["hint"]))
    return done.exit_code, told


def _only(told: Told, status: str) -> set[str]:
    return {name for name, results in told.items() if any(result[0] == status for result in results)}


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "own_sshd") as sshd:
        yield sshd


@pytest.fixture
def own_sites(tmp_path: Path, own_sshd: Sshd) -> Sites:
    """Sites whose sshd may be broken."""
    sites = Sites(tmp_path / "own", own_sshd)
    sites.write_config()
    return sites


def test_before_the_first_start_all_is_well(sites: Sites) -> None:
    # Keys of the original manager are a note.
    sites.write_config(database={"echo": True})
    code, told = _check(sites)
    assert code == 0
    assert ("OK", "database.echo: is ignored; the ledger has no such setting", "") in told["configuration"]
    assert _only(told, "WARN") == set()
    assert _only(told, "FAIL") == set()
    assert set(told) >= {
        "configuration",
        "ledger",
        "manager",
        "buffer",
        "holding",
        "odd files",
        "clock",
        "space: buffer",
        "space: holding",
        "space: ledger",
        "programs here",
        "host key",
        "ssh login",
        "endpoint programs",
        "transfer",
        "staging and buffer",
        "space: endpoint buffer",
        "endpoint clock",
    }


def test_the_text_has_the_same_results_and_the_hints(sites: Sites) -> None:
    config = sites.write_config()
    write_file(sites.buffer, b"a.fits", b"x")
    done = sites.command("check", config)
    out = done.stdout.decode()
    assert done.exit_code == 5
    # However long the path is that the lines are folded for.
    assert (
        "WARN manager it was never started with this ledger, and files lie in the buffer "
        f"→ hdfmgr start {config} "
    ) in " ".join(out.split())
    assert out.splitlines()[-1].endswith(" OK, 1 WARN, 0 FAIL")


def _changes(sites: Sites) -> list[tuple[str, int]]:
    """All that is there, with the times at which it was changed: a directory's when a name came or went."""
    return sorted((str(path), path.stat().st_ctime_ns) for path in sites.directory.rglob("*"))


def test_a_check_only_reads_on_both_sides(sites: Sites) -> None:
    sites.write_config()
    write_file(sites.buffer, b"a.fits", b"x")
    before = _changes(sites)
    _check(sites)
    assert _changes(sites) == before


def test_endpoint_directories_that_have_never_been_seen_are_made_by_the_first_start(sites: Sites) -> None:
    sites.write_config()
    for place in (sites.staging, sites.endpoint_buffer):
        place.rmdir()
    before = _changes(sites)
    code, told = _check(sites)
    assert (code, _only(told, "WARN"), _changes(sites)) == (5, {"endpoint"}, before)
    assert [result[1] for result in told["endpoint"]] == [
        f"the endpoint's buffer, {sites.endpoint_buffer}, is not there yet: the first start makes it",
        f"the endpoint's staging, {sites.staging}, is not there yet: the first start makes it",
    ]
    assert told["staging and buffer"][0][0] == "OK"


def test_an_endpoint_directory_that_is_gone_fails(sites: Sites) -> None:
    sites.write_config()
    with Ledger.open(sites.ledger, LIFECYCLE) as ledger:
        ledger.choose_algorithm("sha256")
    sites.endpoint_buffer.rmdir()
    for flags in ((), ("--canary",)):
        code, told = _check(sites, *flags)
        assert code == 4
        assert told["endpoint"][0][:2] == (
            "FAIL",
            f"the endpoint's buffer, {sites.endpoint_buffer}, is gone",
        )
        assert not sites.endpoint_buffer.exists()


def test_a_log_that_cannot_be_written_fails(sites: Sites) -> None:
    log = sites.directory / "nowhere" / "messages.log"
    sites.write_config(logging={"file": str(log)})
    _, told = _check(sites)
    assert told["log"] == [
        (
            "FAIL",
            f"{log}: there is no directory {log.parent}",
            "make its directory, and let the manager's account write there",
        )
    ]


def test_a_broken_configuration_is_a_result_too(sites: Sites) -> None:
    sites.write_config(general={"pause": "soon"})
    code, told = _check(sites)
    assert code == 4
    assert set(told) == {"configuration"}
    assert "general.pause" in told["configuration"][0][1]


@pytest.mark.parametrize("name", ["buffer", "holding"])
def test_a_missing_directory_fails_and_hides_nothing_else(sites: Sites, name: str) -> None:
    sites.write_config()
    getattr(sites, name).rmdir()
    code, told = _check(sites)
    assert code == 4
    assert _only(told, "FAIL") == {name}
    assert "is not a directory" in told[name][0][1]
    assert told["ssh login"][0][0] == "OK"


def test_too_little_space_fails_on_both_sides(sites: Sites) -> None:
    sites.write_config(general={"min_free": "1000PB"})
    code, told = _check(sites)
    assert code == 4
    assert _only(told, "FAIL") == {name for name in told if name.startswith("space: ")}
    assert "less than min_free (1.00 EB)" in told["space: endpoint buffer"][0][1]


def test_odd_files_are_named(sites: Sites) -> None:
    sites.write_config()
    os.mkfifo(sites.buffer / "pipe")
    os.symlink("nowhere", os.fsencode(sites.buffer) + b"/link\xff")
    _, told = _check(sites)
    status, detail, _ = told["odd files"][0]
    assert status == "WARN"
    assert "pipe (fifo)" in detail
    assert "link\\xff (symbolic link)" in detail


def test_a_missing_program_fails(sites: Sites, tmp_path: Path) -> None:
    sites.write_config(endpoint={"transfer": "rsync"})
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").symlink_to("/usr/bin/ssh")
    _, told = _check(sites, env={"PATH": str(tmp_path / "bin")})
    assert ("FAIL", "rsync is not there", "install rsync, or put it on PATH") in told["programs here"]


@pytest.mark.parametrize(
    ("here", "tar", "result"),
    [
        ("ssh", "GNU tar", ("OK", "files go as a tar stream through ssh", "")),
        (
            "ssh rsync",
            "bsdtar",
            ("OK", "files go by rsync; with GNU tar at the endpoint it would be faster", ""),
        ),
        ("ssh scp", "bsdtar", ("OK", "files go by scp; with GNU tar at the endpoint it would be faster", "")),
        (
            "ssh",
            "bsdtar",
            (
                "FAIL",
                "there is neither GNU tar at the endpoint, nor rsync at both ends, nor scp here",
                "install GNU tar there",
            ),
        ),
    ],
)
def test_it_is_told_how_files_will_go(
    tmp_path: Path, here: str, tar: str, result: tuple[str, str, str]
) -> None:
    programs, fake = tmp_path / "here", tmp_path / "there"
    programs.mkdir()
    fake.mkdir()
    for program in here.split():
        (programs / program).symlink_to(f"/usr/bin/{program}")
    (fake / "tar").write_text(f"#!/bin/sh\necho {tar}\n")
    (fake / "tar").chmod(0o755)
    with Sshd(tmp_path / "sshd", environment={"PATH": f"{fake}:/usr/bin:/bin"}) as sshd:
        sites = Sites(tmp_path / "sites", sshd)
        sites.write_config()
        _, told = _check(sites, env={"PATH": str(programs)})
    assert told["transfer"] == [result]


def test_a_refused_connection_fails_with_what_to_look_at(own_sites: Sites, own_sshd: Sshd) -> None:
    own_sshd.stop()
    code, told = _check(own_sites)
    assert code == 4
    status, detail, hint = told["ssh login"][0]
    assert (status, detail.partition(":")[0]) == ("FAIL", "connection refused")
    assert "endpoint.ssh.port" in hint
    assert told["endpoint"][0][0] == "WARN"
    assert told["buffer"][0][0] == "OK"


def test_an_sshd_that_accepts_and_hangs_fails_in_time(own_sites: Sites, own_sshd: Sshd) -> None:
    own_sites.write_config(endpoint={"ssh": {"options": {"ConnectTimeout": "1"}}})
    own_sshd.pause()
    try:
        code, told = _check(own_sites)
    finally:
        own_sshd.resume()
    assert code == 4
    assert told["ssh login"][0][1].startswith("ssh does not answer")


def test_a_changed_host_key_fails_closed(own_sites: Sites, own_sshd: Sshd) -> None:
    own_sshd.stop()
    own_sshd.renew_host_key()
    own_sshd.start()
    _, told = _check(own_sites)
    assert told["host key"][0][1].startswith("host key changed")
    assert "ssh login" not in told


def test_an_unknown_host_key_fails_closed(own_sites: Sites, own_sshd: Sshd) -> None:
    own_sshd.known_hosts.write_text("")
    _, told = _check(own_sites)
    assert told["host key"][0][1].startswith("host key unknown")


def test_a_key_that_is_not_authorized_fails(own_sites: Sites, own_sshd: Sshd) -> None:
    (own_sshd.directory / "authorized_keys").write_text("")
    _, told = _check(own_sites)
    assert told["ssh login"][0][1].startswith("permission denied")


def test_a_login_shell_that_prints_is_told_before_rsync_stumbles_over_it(tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd", noise=b"\nWelcome\x1b[0m\nto all\n") as sshd:
        sites = Sites(tmp_path / "sites", sshd)
        for transfer, expected in (("rsync", "FAIL"), ("scp", "WARN")):
            sites.write_config(endpoint={"transfer": transfer})
            [(status, detail, hint)] = _check(sites)[1]["login shell"]
            assert (status, detail) == (expected, r"it prints before every command: Welcome\x1b[0m")
            assert "print nothing" in hint


def test_a_directory_that_cannot_be_written_there_fails(tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd", powerless=True) as sshd:
        sites = Sites(tmp_path / "sites", sshd)
        sites.write_config()
        sites.endpoint_buffer.chmod(0o555)
        _, told = _check(sites)
    assert [result[0] for result in told["endpoint"]] == ["FAIL"]
    assert "not writable" in told["endpoint"][0][1]


def test_staging_and_buffer_on_two_filesystems_fail(sites: Sites) -> None:
    shared = Path("/dev/shm") / f"dbb-test-{os.getpid()}"
    assert os.stat("/dev/shm").st_dev != os.stat(sites.directory).st_dev
    sites.write_config(endpoint={"staging": str(shared)})
    # Nothing is made there to find that out.
    _, told = _check(sites)
    assert not shared.exists()
    failed = told.get("endpoint", []) + told.get("staging and buffer", [])
    assert any(status == "FAIL" and "filesystem" in detail + hint for status, detail, hint in failed)


def test_a_clock_that_differs_there_is_told(tmp_path: Path) -> None:
    fake = tmp_path / "bin"
    fake.mkdir()
    # A stand-in for the clock of a machine that is an hour ahead.
    (fake / "date").write_text('#!/bin/sh\nexec /bin/date -d "+1 hour" "$@"\n')
    (fake / "date").chmod(0o755)
    with Sshd(tmp_path / "sshd", environment={"PATH": f"{fake}:/usr/bin:/bin"}) as sshd:
        sites = Sites(tmp_path / "sites", sshd)
        sites.write_config()
        _, told = _check(sites)
    status, detail, _ = told["endpoint clock"][0]
    assert (status, detail) == ("WARN", "1 h ahead of ours")


def _beat(sites: Sites, *, age: float) -> None:
    now = now_ms()
    with Ledger.open(sites.ledger, LIFECYCLE) as ledger:
        ledger.beat(ManagerRow(1, "here", "0.1.0", now - 3_600_000, now - round(age * 1000)))


def test_a_dead_manager_fails(sites: Sites) -> None:
    config = sites.write_config()
    _beat(sites, age=100)
    code, told = _check(sites)
    assert code == 4
    status, detail, hint = told["manager"][0]
    assert status == "FAIL"
    assert detail.startswith("not running; last seen alive ")
    assert hint == f"hdfmgr start {config}"


@pytest.mark.parametrize(("age", "status"), [(0.0, "OK"), (30.0, "WARN"), (100.0, "FAIL")])
def test_a_manager_that_holds_the_lock_must_have_a_pulse(sites: Sites, age: float, status: str) -> None:
    sites.write_config()
    _beat(sites, age=age)
    with ManagerLock(sites.ledger):
        _, told = _check(sites)
    assert told["manager"][0][0] == status
    assert ("silent for" in told["manager"][0][1]) is (status != "OK")


def test_the_check_reads_nothing_of_the_users_own_ssh(sites: Sites) -> None:
    sites.write_config()
    _, told = _check(sites, env={"HOME": str(sites.directory)})
    assert told["ssh login"][0][0] == "OK"


# The canary


@pytest.mark.parametrize("transfer", ["rsync", "scp"])
def test_the_canary_goes_the_whole_way_and_leaves_nothing(sites: Sites, transfer: str) -> None:
    sites.write_config(endpoint={"transfer": transfer})
    _check(sites, "--canary")
    # The first has made what the manager would have made there.
    before = sorted(str(path) for path in sites.directory.rglob("*"))
    _, told = _check(sites, "--canary")
    assert [result[0] for result in told["canary"]] == ["OK", "OK", "OK"]
    assert f"delivered by {transfer}, and verified at rest" in told["canary"][0][1]
    assert "held" in told["canary"][1][1]
    assert sorted(str(path) for path in sites.directory.rglob("*")) == before


def test_the_canary_goes_by_ones_own_command(sites: Sites) -> None:
    ssh = sites.sshd.ssh_section()
    options = " ".join(f"-o {key}={value}" for key, value in dict(ssh["options"]).items())
    command = f"scp -Bpq -P {ssh['port']} -i {ssh['identity']} {options} {{file}} {{host}}:{{dest}}"
    sites.write_config(endpoint={"commands": {"transfer": command}})
    _, told = _check(sites, "--canary")
    assert [result[0] for result in told["canary"]] == ["OK", "OK", "OK"]
    assert "delivered by commands" in told["canary"][0][1]


def test_a_canary_that_does_not_arrive_fails_and_is_cleared_away(sites: Sites) -> None:
    # A command that says that it has sent, and has not.
    sites.write_config(endpoint={"commands": {"transfer": "true {file} {dest}"}})
    code, told = _check(sites, "--canary")
    assert code == 4
    assert told["canary"][0][0] == "FAIL"
    assert [path.name for path in sites.staging.iterdir() if path.name.startswith("batch-")] == []


def test_a_canary_without_a_connection_fails_and_hides_nothing(own_sites: Sites, own_sshd: Sshd) -> None:
    own_sshd.stop()
    _, told = _check(own_sites, "--canary")
    assert told["canary"][0][1].startswith("connection refused")
    assert told["buffer"][0][0] == "OK"


def test_a_canary_disturbs_no_running_manager(sites: Sites) -> None:
    config = sites.write_config(general={"settle": 0})
    write_file(sites.buffer, b"a.fits", b"x" * 1000)
    with sites.start("start", config):
        deadline = time.monotonic() + 30
        while not (sites.holding / "a.fits").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        _, told = _check(sites, "--canary")
        assert [result[0] for result in told["canary"]] == ["OK", "OK", "OK"]
        write_file(sites.buffer, b"b.fits", b"y" * 1000)
        while not (sites.holding / "b.fits").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        counts = json.loads(sites.command("status", config, "--json").stdout)["states"]
    assert {state: count["files"] for state, count in counts.items() if count["files"]} == {"held": 2}
    assert sorted(files_below(sites.endpoint_buffer)) == [b"a.fits", b"b.fits"]
    notes = [line for note in (sites.staging / ".notes").iterdir() for line in note.read_text().splitlines()]
    assert sorted(json.loads(line)["path"] for line in notes) == ["a.fits", "b.fits"]
