"""A survey finds out what is there and what works, makes our directories, and clears away what is ours."""

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from common.errors import Scope
from common.exchange import Receipts
from common.files import Checksum
from common.ledger.rows import Receipt
from common.process import run
from handoff.survey import look, survey
from handoff.visit import Expected
from tests.apart import apart, mount, own_namespaces
from tests.integration.visiting import BATCH, OWNER, SHELLS, Endpoint, Shell, sha256, stand_in
from tests.loopback import write_file

POWERLESS = "setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-dac_override,-dac_read_search"
OTHERS = f"batch-{'f' * 16}-1".encode()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_survey_tells_what_there_is(tmp_path: Path, shell: str) -> None:
    endpoint = Endpoint(tmp_path, Shell(shell))
    found = endpoint.survey()
    assert found.problems == ()
    assert found.failure is None
    assert found.tar
    assert found.rsync
    assert found.rsync_version >= (3, 1)
    assert found.digests == {"openssl", "sha256sum", "b2sum"}
    assert found.hard_links
    assert found.same_filesystem
    assert abs(found.clock_offset) <= found.clock_error + 0.02
    there = os.statvfs(endpoint.buffer)
    assert found.space["buffer"].total_bytes == there.f_blocks * there.f_frsize
    assert found.space["staging"].free_bytes == pytest.approx(there.f_bavail * there.f_frsize, rel=0.1)
    assert found.staging.writable
    assert found.buffer.writable
    assert os.listdir(endpoint.buffer) == []
    assert sorted(os.listdir(endpoint.staging)) == [b".notes", b".receipts"]
    assert endpoint.notes == {}


def test_the_directories_are_made(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path)
    found = survey(
        Shell(), staging=endpoint.staging + b"/a/b", buffer=endpoint.buffer + b"/c\n/d", owner=OWNER
    )
    assert found.problems == ()
    assert os.path.isdir(endpoint.staging + b"/a/b/.receipts")
    assert os.path.isdir(endpoint.buffer + b"/c\n/d")


def test_a_clock_that_is_wrong_is_told(tmp_path: Path) -> None:
    environment = stand_in(tmp_path / "programs", "date", "echo $(( $(real +%s) - 3600 )).5")
    found = Endpoint(tmp_path, Shell(environment=environment)).survey()
    assert found.clock_offset == pytest.approx(-3600, abs=2)


def test_only_our_own_leftovers_are_cleared_away(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path)
    kept, mine, odd = BATCH + b"0", BATCH, f"batch-{OWNER}-\n x".encode()
    staging = Path(os.fsdecode(endpoint.staging))
    for name in (kept, mine, odd, OTHERS, b"batch", b"night", b".notes", b".receipts"):
        write_file(staging, name + b"/some/file", b"x")
    for note in (mine + b".jsonl", OTHERS + b".jsonl"):
        write_file(staging / ".notes", note, b"{}\n")
    for name in (kept, mine, OTHERS):
        write_file(staging / ".notes", b"." + name + b".tmp", b"{")
    outside = tmp_path / "outside"
    write_file(outside, b"file", b"x")
    os.symlink(outside, os.path.join(endpoint.staging, BATCH + b"9"))
    os.chmod(os.path.join(endpoint.staging, mine, b"some"), 0o500)
    found = endpoint.survey(keep=[kept])
    assert sorted(found.cleared) == sorted([mine, odd, BATCH + b"9"])
    assert endpoint.staged == sorted([kept, OTHERS, b"batch", b"night"])
    assert set(endpoint.notes) == {
        b"some/file",
        mine + b".jsonl",
        OTHERS + b".jsonl",
        b"." + kept + b".tmp",
        b"." + OTHERS + b".tmp",
    }
    assert (outside / "file").exists()


def test_directories_without_the_right_to_write_are_cleared_away(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path, _powerless())
    for name in (BATCH, BATCH + b"2"):
        write_file(Path(os.fsdecode(endpoint.staging)), name + b"/a/b/c", b"x")
        for directory in (b"/a/b", b"/a"):
            os.chmod(os.path.join(endpoint.staging, name) + directory, 0o500)
    assert endpoint.survey(keep=None, leftovers=[BATCH]).cleared == (BATCH,)
    assert endpoint.staged == [BATCH + b"2"]
    assert endpoint.survey().cleared == (BATCH + b"2",)
    assert endpoint.staged == []


def test_while_batches_are_in_flight_only_old_ones_go(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path)
    old, young, kept = (BATCH + number for number in (b"1", b"2", b"3"))
    for name in (old, young, kept):
        endpoint.stage({b"a": b""}, batch=name)
    for name in (old, kept):
        os.utime(os.path.join(endpoint.staging, name), (0, time.time() - 660))
    assert endpoint.survey(keep=[kept], aged=True).cleared == (old,)
    assert endpoint.staged == [young, kept]


def test_while_batches_are_in_flight_only_named_leftovers_go(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path)
    endpoint.stage({b"a": b""})
    endpoint.stage({b"a": b""}, batch=BATCH + b"2")
    assert endpoint.survey(keep=None).cleared == ()
    assert endpoint.survey(keep=None, leftovers=[BATCH, BATCH + b"3"]).cleared == (BATCH,)
    assert endpoint.staged == [BATCH + b"2"]


def _replace_by_file(path: bytes) -> None:
    os.rmdir(path)
    Path(os.fsdecode(path)).touch()


def _close(path: bytes) -> None:
    os.chmod(path, 0o500)


def _shut(path: bytes) -> None:
    os.chmod(path, 0)


@pytest.mark.parametrize(
    ("place", "spoil", "cause", "reason"),
    [
        (
            "staging",
            _replace_by_file,
            "endpoint directory missing",
            "staging can't be used: .*Not a directory",
        ),
        ("buffer", _replace_by_file, "endpoint directory missing", "buffer can't be used: .*: File exists"),
        ("staging", _close, "endpoint not writable", "staging can't be used: .*: Permission denied"),
        ("buffer", _close, "endpoint not writable", "buffer can't be written to: Permission denied"),
        ("buffer", _shut, "endpoint not writable", "buffer can't be used: .*: Permission denied"),
    ],
)
def test_what_is_wrong_with_the_directories_is_told(
    tmp_path: Path, place: str, spoil: Callable[[bytes], None], cause: str, reason: str
) -> None:
    endpoint = Endpoint(tmp_path, _powerless())
    spoil(os.path.join(os.fsencode(tmp_path), place.encode()))
    failure = endpoint.survey().failure
    assert failure is not None
    assert (failure.scope, failure.cause) == (Scope.ENDPOINT, cause)
    assert re.fullmatch(f"the endpoint's {reason}", failure.reason)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_look_tells_the_same_and_changes_nothing(tmp_path: Path, shell: str) -> None:
    endpoint = Endpoint(tmp_path, Shell(shell))
    places = (endpoint.staging, endpoint.buffer)
    before = [os.stat(place).st_ctime_ns for place in places]
    found = look(endpoint.remote, staging=endpoint.staging, buffer=endpoint.buffer, owner=OWNER)
    assert [os.stat(place).st_ctime_ns for place in places] == before
    made = endpoint.survey()
    assert (found.problems, found.missing, found.same_filesystem) == ((), frozenset(), True)
    assert found.programs["stat"].startswith("stat (GNU coreutils) ")
    assert ({**found.programs, **made.programs}, made.digests) == (found.programs, found.digests)
    assert (found.staging.device, found.staging.mount) == (made.staging.device, made.staging.mount)
    assert set(found.space) == {"staging", "buffer"}


def test_of_what_is_missing_a_look_tells_the_place_where_it_would_be_made(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path, _powerless())
    os.chmod(endpoint.buffer, 0o500)
    os.symlink("nowhere", tmp_path / "link")
    above = os.fsencode(tmp_path)
    well = look(endpoint.remote, staging=endpoint.staging, buffer=above + b"/a\n/b", owner=OWNER)
    assert (well.problems, well.missing, well.same_filesystem) == ((), frozenset({"buffer"}), True)
    for buffer, reason in (
        (endpoint.buffer + b"/a/b", "buffer can't be made where it should be: Permission denied"),
        (endpoint.buffer, "buffer can't be written to: Permission denied"),
        (above + b"/link", "buffer can't be used: .*: No such file or directory"),
    ):
        found = look(endpoint.remote, staging=endpoint.staging, buffer=buffer, owner=OWNER)
        assert found.failure is not None
        assert re.fullmatch(f"the endpoint's {reason}", found.failure.reason)
    assert sorted(os.listdir(tmp_path)) == ["buffer", "link", "staging"]


def test_a_tar_that_is_not_gnus_is_not_relied_upon(tmp_path: Path) -> None:
    environment = stand_in(tmp_path / "programs", "tar", "echo 'bsdtar 3.6.2 - libarchive 3.6.2'")
    assert not Endpoint(tmp_path, Shell(environment=environment)).survey().tar


def test_programs_that_are_lacking_are_told(tmp_path: Path) -> None:
    reason = "the endpoint lacks find, xargs, sha256sum or b2sum"
    assert apart(_survey_of_a_bare_machine, tmp_path) in (None, ("program missing at the endpoint", reason))


def _survey_of_a_bare_machine(directory: Path) -> tuple[str, str] | None:
    if not own_namespaces():
        return None
    for name in ("find", "xargs", "sha256sum", "b2sum", "openssl"):
        program = shutil.which(name)
        if program and run(["mount", "--bind", "/dev/null", program]).exit_code:
            return None
    failure = Endpoint(directory).survey().failure
    return (failure.cause, failure.reason) if failure else ("", "")


def test_two_mounts_of_one_filesystem_are_told_apart(tmp_path: Path) -> None:
    assert apart(_survey_of_two_mounts, tmp_path) in (None, (False, "endpoint staging and buffer apart"))


def _survey_of_two_mounts(directory: Path) -> tuple[bool, str] | None:
    endpoint = Endpoint(directory)
    buffer = endpoint.buffer
    if not own_namespaces() or run(["mount", "--bind", buffer, buffer]).exit_code:
        return None
    found = endpoint.survey()
    return found.same_filesystem, found.failure.cause if found.failure else ""


def test_two_filesystems_are_told_apart(tmp_path: Path) -> None:
    cause = "endpoint staging and buffer apart"
    assert apart(_survey_of_two_filesystems, tmp_path) in (None, (False, cause, cause, {}))


def _survey_of_two_filesystems(directory: Path) -> object:
    endpoint = Endpoint(directory)
    if not own_namespaces() or not mount("tmpfs", endpoint.directory / "buffer"):
        return None
    found = endpoint.survey()
    placement = endpoint.place(endpoint.stage({b"a": b"x"}))
    failure = placement.results[b"a"].failure
    return (
        found.same_filesystem,
        found.failure.cause if found.failure else "",
        failure.cause if failure else "",
        endpoint.arrived,
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_a_disk_without_a_free_byte_is_full(tmp_path: Path, shell: str) -> None:
    cause = "endpoint full"
    reason = "nothing can be written into the endpoint's staging: cat: write error: No space left on device"
    found = apart(_survey_of_a_full_disk, tmp_path, shell)
    assert found in (None, (cause, reason))


def _survey_of_a_full_disk(directory: Path, shell: str) -> tuple[str, str] | None:
    # A directory needs no room there, which a file does.
    if not own_namespaces() or not mount("tmpfs", directory, "size=64k"):
        return None
    endpoint = Endpoint(directory, Shell(shell))
    with suppress(OSError), open(directory / "filler", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    failure = endpoint.survey().failure
    return (failure.cause, failure.reason) if failure else ("", "")


def test_receipts_come_with_any_visit_and_go_once_they_are_recorded(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path)
    endpoint.survey()
    receipts = Path(os.fsdecode(endpoint.staging), ".receipts")
    line = {"path": "a\nb", "digest": "0" * 64, "algorithm": "sha256", "at": "2026-07-01T00:00:00Z"}
    lines = [json.dumps(line | {"state": state}) + "\n" for state in ("stored", "ingested")]
    (receipts / "r-1.jsonl").write_text("".join(lines))
    (receipts / "r-2.jsonl").write_text("not JSON\0\n")
    (receipts / ".r-3.jsonl.tmp").write_text("{")
    (receipts / "odd name.jsonl").write_text("{}")
    os.symlink(receipts / "r-1.jsonl", receipts / "link.jsonl")
    at = 1_782_864_000_000
    told = (Receipt(b"a\nb", Checksum("sha256", "0" * 64), state, at) for state in ("stored", "ingested"))
    expected = Receipts(
        {b"r-1.jsonl": tuple(told), b"r-2.jsonl": (None,)},
        ("r-2.jsonl:1: Expecting value: line 1 column 1 (char 0)",),
    )
    assert endpoint.survey().receipts == expected
    assert endpoint.place(endpoint.stage({b"a": b"x"})).receipts == expected
    missing = [Expected(b"b", 1, sha256(b"x"))]
    assert endpoint.place(missing, passing=[b"r-2.jsonl"]).receipts.names == (b"r-1.jsonl",)
    assert endpoint.place(missing, recorded=[b"r-1.jsonl"]).receipts.names == (b"r-2.jsonl",)
    assert endpoint.survey(recorded=[b"r-2.jsonl", b"gone.jsonl"]).receipts == Receipts()
    assert sorted(os.listdir(receipts)) == [".r-3.jsonl.tmp", "link.jsonl", "odd name.jsonl"]


def test_receipts_come_in_portions(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path)
    endpoint.survey()
    for number in range(500):
        write_file(Path(os.fsdecode(endpoint.staging)), b".receipts/%03d.jsonl" % number, b"x" * 100)
    write_file(Path(os.fsdecode(endpoint.staging)), b".receipts/000.jsonl", b"x" * (3 << 20))
    first = endpoint.survey().receipts
    assert first.names == (b"000.jsonl",)
    second = endpoint.survey(recorded=first.names).receipts
    assert second.names == tuple(b"%03d.jsonl" % number for number in range(1, 201))


def _powerless() -> Shell:
    return Shell(f"{POWERLESS} sh" if os.geteuid() == 0 else "sh")
