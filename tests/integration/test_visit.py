"""A batch is verified where it lies, and put in place by one command, whatever is in its way."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from common.errors import Failure, Scope
from common.exchange import delivery_note
from common.files import Algorithm
from handoff.visit import Expected, Result
from tests.integration.visiting import (
    BATCH,
    EVERY_BYTE,
    HOSTILE,
    PROGRAMS,
    SENT,
    SHELLS,
    Endpoint,
    Shell,
    sha256,
    stand_in,
    verdicts,
)

NOTE = BATCH + b".jsonl"
GOOD = {b"night/%d.fits" % number: b"%d" % number * 1000 for number in range(12)}


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(tmp_path)


@pytest.mark.parametrize("algorithm", ["sha256", "blake2b"])
@pytest.mark.parametrize("shell", SHELLS)
def test_any_name_arrives_with_its_content_and_its_note(
    tmp_path: Path, shell: str, algorithm: Algorithm
) -> None:
    remote = Shell(shell)
    endpoint = Endpoint(tmp_path, remote)
    contents = {name: name * 3 for name in HOSTILE} | {b"empty": b""}
    expected = endpoint.stage(contents, algorithm=algorithm)
    placement = endpoint.place(expected)
    assert placement.results == {name: Result(name, "placed") for name in contents}
    assert placement.rounds == 1
    assert endpoint.arrived == contents
    assert endpoint.staged == []
    assert set(endpoint.notes) == {NOTE}
    assert sorted(endpoint.notes[NOTE].splitlines()) == sorted(delivery_note(expected, SENT).splitlines())
    assert remote.complaints == b""
    assert verdicts(endpoint.ask(expected)) == dict.fromkeys(contents, "already")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_directories_may_have_any_name(tmp_path: Path, shell: str) -> None:
    for name in (b"-", b"a b'c\"\n", EVERY_BYTE):
        endpoint = Endpoint(os.path.join(os.fsencode(tmp_path), name), Shell(shell))
        assert endpoint.survey().problems == ()
        assert verdicts(endpoint.place(endpoint.stage(GOOD)).results) == dict.fromkeys(GOOD, "placed")
        assert endpoint.arrived == GOOD


def test_a_file_is_placed_as_it_was_sent(endpoint: Endpoint) -> None:
    expected = endpoint.stage({b"a/b": b"x"})
    copy = os.path.join(endpoint.staging, BATCH, b"a/b")
    os.chmod(copy, 0o440)
    os.utime(copy, ns=(1, 1_234_567_890_123_456_789))
    os.chmod(os.path.dirname(copy), 0o700)
    sent = os.stat(copy)
    endpoint.place(expected)
    there = os.stat(os.path.join(endpoint.buffer, b"a/b"))
    assert (there.st_ino, there.st_mode, there.st_mtime_ns, there.st_nlink) == (
        sent.st_ino,
        sent.st_mode,
        sent.st_mtime_ns,
        1,
    )
    umask = os.umask(0)
    os.umask(umask)
    assert os.stat(os.path.join(endpoint.buffer, b"a")).st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("shell", SHELLS)
def test_files_numbered_by_directory_arrive_in_their_tree(tmp_path: Path, shell: str) -> None:
    endpoint = Endpoint(tmp_path, Shell(shell))
    directories = (b"a/b", b"", b"a", b"x/-y\n/z")
    names = (b"one", b"tree", b"b2", b"-")
    placed = {b"a/b/one": b"1", b"tree": b"2", b"a/b2": b"3", b"x/-y\n/z/-": b"4"}
    endpoint.stage({b"%d/%s" % pair: b"%d" % (pair[0] + 1) for pair in enumerate(names)})
    expected = [Expected(path, 1, sha256(content)) for path, content in placed.items()]
    placement = endpoint.place(expected, layout="numbered", directories=directories)
    assert verdicts(placement.results) == dict.fromkeys(placed, "placed")
    assert endpoint.arrived == placed
    assert endpoint.staged == []


@pytest.mark.parametrize("shell", SHELLS)
def test_what_can_be_placed_is_placed_beside_what_cannot(tmp_path: Path, shell: str) -> None:
    endpoint = Endpoint(tmp_path, Shell(shell))
    expected = endpoint.stage(GOOD | {b"same": b"s", b"other": b"new", b"flipped": b"0", b"short": b"123456"})
    expected += [Expected(b"night/lost", 1, sha256(b"x"))]
    endpoint.stage({b"night/late\n": b"not to arrive", b"only/late": b"", b"flipped": b"1", b"short": b"123"})
    endpoint.put(b"same", b"s")
    endpoint.put(b"other", b"old")
    placement = endpoint.place(expected)
    others = {
        b"same": "already",
        b"other": "conflict",
        b"flipped": "differs",
        b"short": "differs",
        b"night/lost": "missing",
    }
    assert verdicts(placement.results) == dict.fromkeys(GOOD, "placed") | others
    assert endpoint.arrived == GOOD | {b"same": b"s", b"other": b"old"}
    assert not os.path.exists(os.path.join(endpoint.buffer, b"only"))
    assert endpoint.staged == []
    assert _noted(endpoint) == set(GOOD)
    results = placement.results
    assert results[b"other"].found == sha256(b"old")
    assert results[b"flipped"].found == sha256(b"1")
    assert results[b"flipped"].failure == Failure(
        Scope.FILE,
        "arrived different",
        "flipped: what arrived in the endpoint's staging is not what was sent: its digest is 6b86b273ff34…",
        "it is sent again; if it comes again, look at the network and at the disk there",
    )
    assert results[b"short"].reason.endswith(": 3 bytes instead of 6")
    assert placement.rounds <= 4


def test_a_file_that_changed_while_it_was_sent_can_be_left_out(endpoint: Endpoint) -> None:
    expected = endpoint.stage(GOOD)
    endpoint.stage({b"changed/x": b"?"})
    placement = endpoint.place(expected, discard=[b"changed/x"])
    assert placement.rounds == 1
    assert endpoint.arrived == GOOD
    assert os.listdir(endpoint.buffer) == [b"night"]


def test_nothing_in_the_way_is_replaced_or_followed(endpoint: Endpoint, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "target").write_bytes(b"mine")
    inside = Path(os.fsdecode(endpoint.buffer))
    (inside / "link").symlink_to(outside / "target")
    (inside / "dangling").symlink_to("nowhere")
    (inside / "linked").symlink_to(outside)
    (inside / "directory").mkdir()
    os.mkfifo(inside / "fifo")
    (inside / "file").write_bytes(b"f")
    paths = [b"link", b"dangling", b"directory", b"fifo", b"linked/new", b"linked/deep/er", b"file/below"]
    placement = endpoint.place(endpoint.stage(GOOD | dict.fromkeys(paths, b"new")))
    assert verdicts(placement.results) == dict.fromkeys(GOOD, "placed") | dict.fromkeys(paths, "failed")
    failures = [placement.results[path].failure for path in paths]
    assert {failure and failure.cause for failure in failures} == {"name taken at the endpoint"}
    assert "a symbolic link, linked" in placement.results[b"linked/deep/er"].reason
    assert os.listdir(outside) == ["target"]
    assert (outside / "target").read_bytes() == b"mine"
    assert endpoint.arrived == GOOD | {b"file": b"f"}


def test_a_link_in_staging_is_never_followed(endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "inner").write_bytes(b"s")
    expected = endpoint.stage(GOOD)
    batch = os.path.join(endpoint.staging, BATCH)
    os.symlink(tmp_path / "secret", os.path.join(batch, b"secret"))
    os.symlink(tmp_path / "directory", os.path.join(batch, b"directory"))
    expected += [Expected(path, 1, sha256(b"s")) for path in (b"secret", b"directory/inner")]
    placement = endpoint.place(expected)
    assert placement.results[b"secret"].verdict == placement.results[b"directory/inner"].verdict == "missing"
    assert endpoint.arrived == GOOD
    assert (tmp_path / "secret").exists()
    assert (tmp_path / "directory" / "inner").exists()


def test_nothing_that_was_sent_is_nothing_that_arrived(endpoint: Endpoint) -> None:
    expected = [Expected(b"a", 1, sha256(b"x"))]
    placement = endpoint.place(expected)
    assert verdicts(placement.results) == {b"a": "missing"}
    assert endpoint.notes == {}


def test_a_delivery_can_be_repeated(endpoint: Endpoint) -> None:
    endpoint.place(endpoint.stage(GOOD))
    again = BATCH + b"2"
    placement = endpoint.place(endpoint.stage(GOOD, batch=again), batch=again)
    assert verdicts(placement.results) == dict.fromkeys(GOOD, "already")
    assert endpoint.arrived == GOOD
    assert endpoint.staged == []
    assert set(endpoint.notes) == {NOTE}


def test_asking_tells_what_arrived_and_changes_nothing(endpoint: Endpoint) -> None:
    expected = [
        Expected(path, 1, sha256(b"x")) for path in (b"a/same", b"other\n", b"a/none", b"no/where", b"dir")
    ]
    endpoint.put(b"a/same", b"x")
    endpoint.put(b"other\n", b"y")
    os.mkdir(os.path.join(endpoint.buffer, b"dir"))
    results = endpoint.ask(expected)
    assert verdicts(results) == {
        b"a/same": "already",
        b"other\n": "conflict",
        b"a/none": "missing",
        b"no/where": "missing",
        b"dir": "failed",
    }
    assert results[b"other\n"].found == sha256(b"y")
    assert endpoint.arrived == {b"a/same": b"x", b"other\n": b"y"}
    assert os.listdir(endpoint.staging) == []


def test_without_notes_none_is_written(endpoint: Endpoint) -> None:
    endpoint.place(endpoint.stage(GOOD), note=False)
    assert endpoint.arrived == GOOD
    assert endpoint.notes == {}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_batch_may_be_longer_than_a_command_line(tmp_path: Path, shell: str) -> None:
    endpoint = Endpoint(tmp_path, Shell(shell))
    contents = {b"%d/%s%d" % (n % 3, b"long" * 40, n): b"%d" % n for n in range(2000)}
    placement = endpoint.place(endpoint.stage(contents))
    assert verdicts(placement.results) == dict.fromkeys(contents, "placed")
    assert endpoint.arrived == contents
    endpoint.stage(contents)
    assert verdicts(endpoint.ask(endpoint.stage(contents))) == dict.fromkeys(contents, "already")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_batch_costs_a_few_processes_and_not_one_a_file(tmp_path: Path, shell: str) -> None:
    calls = tmp_path / "calls"
    for program in PROGRAMS:
        environment = stand_in(tmp_path / "programs", program, f'echo {program} >>{calls}\nreal "$@"')
    endpoint = Endpoint(tmp_path, Shell(shell, environment=environment))
    contents = {b"%d/%d" % (number % 5, number): b"x" * number for number in range(500)}
    endpoint.survey()
    calls.write_text("")
    assert endpoint.place(endpoint.stage(contents)).rounds == 1
    called = Counter(calls.read_text().split())
    assert called["openssl"] == called["cp"] == called["mkdir"] == 1
    # One `head` of them has fetched the script.
    assert called.total() <= 17


@pytest.mark.parametrize("shell", SHELLS)
def test_large_files_are_verified_side_by_side(tmp_path: Path, shell: str) -> None:
    endpoint = Endpoint(tmp_path, Shell(shell))
    contents = {b"%d" % number: b"%d" % number * (33 << 20) for number in range(3)} | GOOD
    expected = endpoint.stage(contents)
    with open(os.path.join(endpoint.staging, BATCH, b"1"), "r+b") as file:
        file.write(b"?")
    placement = endpoint.place(expected)
    assert verdicts(placement.results) == dict.fromkeys(contents, "placed") | {b"1": "differs"}


@pytest.mark.parametrize("trouble", ["exit 1", "echo nonsense", "exec cat"], ids=["fails", "lies", "copies"])
def test_without_a_sound_openssl_the_answer_is_right_all_the_same(tmp_path: Path, trouble: str) -> None:
    environment = stand_in(tmp_path / "programs", "openssl", trouble)
    endpoint = Endpoint(tmp_path, Shell(environment=environment))
    endpoint.put(b"night/0.fits", b"other")
    expected = endpoint.stage(GOOD | {b"large": b"x" * (33 << 20)})
    assert "openssl" not in endpoint.survey(keep=[BATCH]).digests
    placement = endpoint.place(expected)
    assert verdicts(placement.results) == dict.fromkeys([*GOOD, b"large"], "placed") | {
        b"night/0.fits": "conflict"
    }


def test_a_name_that_is_taken_meanwhile_is_told_and_its_note_taken_back(tmp_path: Path) -> None:
    taken = tmp_path / "buffer" / "night" / "3.fits"
    same = tmp_path / "buffer" / "night" / "4.fits"
    body = (
        f"mkdir -p {taken.parent}; [ -e {taken} ] || printf mine >{taken}\n"
        f'printf %01000d 4 | tr 0 4 >{same}\nreal "$@"'
    )
    endpoint = Endpoint(tmp_path, Shell(environment=stand_in(tmp_path / "programs", "cp", body)))
    contents = GOOD | {b"night/4.fits": b"4" * 1000}
    placement = endpoint.place(endpoint.stage(contents))
    assert verdicts(placement.results) == dict.fromkeys(GOOD, "placed") | {b"night/3.fits": "conflict"}
    assert endpoint.arrived == contents | {b"night/3.fits": b"mine"}
    assert _noted(endpoint) == set(GOOD) - {b"night/3.fits"}
    assert endpoint.staged == []


def test_a_note_of_nothing_is_taken_back(tmp_path: Path) -> None:
    body = f'printf mine >{tmp_path}/buffer/a\nreal "$@"'
    endpoint = Endpoint(tmp_path, Shell(environment=stand_in(tmp_path / "programs", "cp", body)))
    placement = endpoint.place(endpoint.stage({b"a": b"x"}))
    assert verdicts(placement.results) == {b"a": "conflict"}
    assert endpoint.notes == {}


def test_a_directory_that_is_swept_away_meanwhile_is_made_again(tmp_path: Path) -> None:
    once, directory = tmp_path / "once", tmp_path / "buffer" / "a"
    body = (
        f"[ -e {once} ] || {{ rmdir {directory}/b {directory}; touch {once} {directory}; }}\n"
        f'real "$@"\ncode=$?\n[ -d {directory} ] || rm -f {directory}\nexit $code'
    )
    endpoint = Endpoint(tmp_path, Shell(environment=stand_in(tmp_path / "programs", "cp", body)))
    placement = endpoint.place(endpoint.stage({b"a/b/c": b"x", b"d": b"y"}))
    assert once.exists()
    assert verdicts(placement.results) == {b"a/b/c": "placed", b"d": "placed"}
    assert placement.rounds == 1
    assert endpoint.arrived == {b"a/b/c": b"x", b"d": b"y"}


def test_copies_that_somebody_removes_before_they_are_placed_are_not_called_placed(tmp_path: Path) -> None:
    body = f'rm -f {tmp_path}/staging/batch*/night/3.fits\nreal "$@"'
    endpoint = Endpoint(tmp_path, Shell(environment=stand_in(tmp_path / "programs", "cp", body)))
    placement = endpoint.place(endpoint.stage(GOOD))
    assert verdicts(placement.results) == dict.fromkeys(GOOD, "placed") | {b"night/3.fits": "failed"}
    assert set(endpoint.arrived) == set(GOOD) - {b"night/3.fits"}
    assert _noted(endpoint) == set(endpoint.arrived)


def _noted(endpoint: Endpoint) -> set[bytes]:
    return {json.loads(line)["path"].encode() for line in endpoint.notes[NOTE].splitlines()}
