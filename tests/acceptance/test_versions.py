"""A file is a path and a digest: new content, the same again, names that are taken."""

import json
import os
from collections.abc import Callable
from hashlib import sha256

import pytest

from tests.loopback import Sites, files_below, write_file
from tests.runs import Run, assert_delivered_once, counts, eventually, rows, states

_WAY = ["found", "sending", "delivered", "holding", "held"]


def _carry(sites: Sites, **files: bytes) -> int:
    """Write files, and run a manager until nothing is left that it can do; gives its exit code."""
    for name, content in files.items():
        write_file(sites.buffer, name.encode(), content)
    return sites.command("start", sites.config, "--once").exit_code


def _beside(path: bytes, content: bytes) -> bytes:
    """The name in holding of a version whose own name is taken."""
    return path + b"." + sha256(content).hexdigest()[:12].encode()


def _story(sites: Sites, path: bytes) -> list[str]:
    """The states that all versions of a path have gone through, one after the other."""
    query = "SELECT target FROM history JOIN files ON id = file_id WHERE path = ? ORDER BY file_id, seq"
    return [state for (state,) in rows(sites, query, path)]


def test_new_content_waits_as_a_conflict_until_the_first_has_been_taken_away(sites: Sites) -> None:
    sites.write_config()
    assert _carry(sites, a=b"first") == 0
    with Run(sites) as run:
        for name in (b"a", b"b", b"c"):
            write_file(sites.buffer, name, b"second")
        eventually(lambda: counts(sites) == {"held": 3, "conflict": 1})
        assert files_below(sites.endpoint_buffer) == {b"a": b"first", b"b": b"second", b"c": b"second"}
        assert files_below(sites.buffer) == {b"a": b"second"}
        told = json.loads(sites.command("status", sites.config, "--json").stdout)
        [failure] = told["failures"]
        assert (failure["state"], failure["example"], failure["next_try"]) == ("conflict", "a", None)
        assert sites.command("retry", sites.config, "a").exit_code == 0
        eventually(lambda: _story(sites, b"a")[-2:] == ["sending", "conflict"])

        os.unlink(os.path.join(os.fsencode(sites.endpoint_buffer), b"a"))
        assert sites.command("retry", sites.config, "--cause", "conflict").exit_code == 0
        eventually(lambda: states(sites, b"a") == ["held", "held"])
        assert run.stop() == 0
    assert files_below(sites.endpoint_buffer)[b"a"] == b"second"
    held = {b"a": b"first", _beside(b"a", b"second"): b"second", b"b": b"second", b"c": b"second"}
    assert files_below(sites.holding) == held


def test_the_same_content_once_more_is_delivered_once_more_and_kept_once(sites: Sites) -> None:
    sites.write_config()
    assert [_carry(sites, a=b"same"), _carry(sites, a=b"same")] == [0, 0]
    assert _story(sites, b"a") == _WAY + _WAY
    assert_delivered_once(sites, {b"a": b"same"}, {b"a": 2})


@pytest.mark.parametrize("found", [b"SAME", b"sam"])
def test_a_second_copy_stays_beside_what_holding_has_if_that_is_not_the_same(
    sites: Sites, found: bytes
) -> None:
    sites.write_config()
    assert _carry(sites, a=b"same") == 0
    write_file(sites.holding, b"a", found)
    assert _carry(sites, a=b"same") == 0
    assert files_below(sites.holding) == {b"a": found, _beside(b"a", b"same"): b"same"}


def test_what_has_been_taken_away_on_both_sides_is_delivered_again(sites: Sites) -> None:
    sites.write_config()
    assert _carry(sites, a=b"same") == 0
    for root in (sites.endpoint_buffer, sites.holding):
        (root / "a").unlink()
    assert _carry(sites, a=b"same") == 0
    assert_delivered_once(sites, {b"a": b"same"}, {b"a": 2})


def test_a_file_that_is_moved_back_from_holding_is_delivered_again(sites: Sites) -> None:
    sites.write_config()
    assert _carry(sites, a=b"a") == 0
    (sites.endpoint_buffer / "a").unlink()
    with Run(sites) as run:
        (sites.holding / "a").rename(sites.buffer / "a")
        eventually(lambda: _story(sites, b"a") == _WAY + _WAY)
        assert run.stop() == 0
    assert_delivered_once(sites, {b"a": b"a"}, {b"a": 2})


def test_equal_contents_equal_names_empty_files_and_hard_links_are_files_each(sites: Sites) -> None:
    sites.write_config()
    written = {
        b"a": b"content",
        b"b": b"content",
        b"night1/a": b"content",
        b"night2/a": b"other",
        b"empty": b"",
        b"night1/empty": b"",
    }
    for path, content in written.items():
        write_file(sites.buffer, path, content)
    assert _carry(sites) == 0
    assert_delivered_once(sites, written)


def test_two_names_of_one_file_are_two_files(sites: Sites) -> None:
    sites.write_config()
    os.link(write_file(sites.buffer, b"a", b"content"), os.path.join(os.fsencode(sites.buffer), b"b"))
    assert _carry(sites) == 0
    assert files_below(sites.endpoint_buffer) == {b"a": b"content", b"b": b"content"}
    assert files_below(sites.holding) == {b"a": b"content", b"b": b"content"}
    assert files_below(sites.buffer) == {}


@pytest.mark.parametrize("path", [b"a", b"\xff 'n\n/-a\xfe"])
def test_a_name_that_is_taken_in_holding_gets_the_digest_appended(sites: Sites, path: bytes) -> None:
    sites.write_config()
    write_file(sites.holding, path, b"something else")
    write_file(sites.buffer, path, b"content")
    assert _carry(sites) == 0
    assert files_below(sites.holding) == {path: b"something else", _beside(path, b"content"): b"content"}
    assert files_below(sites.buffer) == {}


def test_a_file_whose_names_in_holding_are_all_taken_waits_for_retry(sites: Sites) -> None:
    sites.write_config()
    taken = {b"a": b"something else", _beside(b"a", b"content"): b"else again"}
    for path, content in taken.items():
        write_file(sites.holding, path, content)
    assert _carry(sites, a=b"content", b=b"content") == 3
    assert files_below(sites.holding) == {**taken, b"b": b"content"}
    assert rows(sites, "SELECT path, cause, due_at FROM files WHERE state = 'failed'") == [
        (b"a", "cannot be held", None)
    ]
    (sites.holding / "a").unlink()
    assert sites.command("retry", sites.config).exit_code == 0
    assert _carry(sites) == 0
    assert files_below(sites.holding)[b"a"] == b"content"


@pytest.mark.parametrize("options", [(), ("--daemon",), ("--once",)])
def test_a_second_manager_says_who_holds_the_ledger_and_succeeds(
    sites: Sites, options: tuple[str, ...]
) -> None:
    sites.write_config()
    with Run(sites) as run:
        eventually(lambda: rows(sites, "SELECT pid FROM manager"))
        second = sites.command("start", sites.config, *options)
        quiet = sites.command("start", sites.config, "--quiet", *options)
        assert (second.exit_code, quiet.exit_code) == (0, 0)
        assert str(run.process.pid).encode() in second.stdout + second.stderr
        assert quiet.stdout + quiet.stderr == b""
        write_file(sites.buffer, b"a", b"a")
        eventually(lambda: counts(sites) == {"held": 1})
        assert run.stop() == 0


def test_of_managers_that_are_started_together_one_works(sites: Sites) -> None:
    sites.write_config()
    with Run(sites) as one, Run(sites) as another, Run(sites) as third:
        runs = (one, another, third)
        eventually(lambda: sorted(str(run.process.poll()) for run in runs) == ["0", "0", "None"])
        write_file(sites.buffer, b"a", b"a")
        eventually(lambda: counts(sites) == {"held": 1})
        [working] = [run for run in runs if run.process.poll() is None]
        assert working.stop() == 0


def _in_the_way(sites: Sites) -> bytes:
    """A path where the endpoint's buffer has a directory."""
    (sites.endpoint_buffer / "bad").mkdir()
    return b"bad"


def _below_a_file(sites: Sites) -> bytes:
    """A path of which the endpoint's buffer has a part as a file."""
    (sites.endpoint_buffer / "bad").touch()
    return b"bad/file"


@pytest.mark.parametrize("poison", [_in_the_way, _below_a_file])
def test_a_file_that_can_not_arrive_fails_alone_and_in_the_end_waits_for_retry(
    sites: Sites, poison: Callable[[Sites], bytes]
) -> None:
    sites.write_config(general={"retry": {"attempts": 3, "first": "0.2s"}})
    bad = poison(sites)
    good = {b"good%d" % number: os.urandom(1000) for number in range(9)}
    for path, content in {**good, bad: b"bad"}.items():
        write_file(sites.buffer, path, content)
    assert _carry(sites) == 3
    assert files_below(sites.holding) == good
    with Run(sites) as run:
        waits = "SELECT path, attempts, cause FROM files WHERE state = 'failed' AND due_at IS NULL"
        assert eventually(lambda: rows(sites, waits)) == [(bad, 3, "name taken at the endpoint")]
        # The good ones were delivered by the first batch, and the bad one was tried again by itself.
        sent = rows(sites, "SELECT files FROM batches WHERE step = 'sending' ORDER BY id")
        assert [files for (files,) in sent] == [10, 1, 1]
        obstacle = sites.endpoint_buffer / "bad"
        obstacle.rmdir() if obstacle.is_dir() else obstacle.unlink()
        assert sites.command("retry", sites.config).exit_code == 0
        eventually(lambda: counts(sites) == {"held": 10})
        assert run.stop() == 0
    assert files_below(sites.endpoint_buffer) == {**good, bad: b"bad"}


def test_the_longest_path_that_there_can_be_arrives(sites: Sites) -> None:
    sites.write_config()
    # Below a batch in staging, whose name is longer than the buffer's, it can't be named as a whole.
    room = os.pathconf(sites.holding, "PC_PATH_MAX") - len(os.fsencode(sites.endpoint_buffer)) - 3
    path = b"d/" * 100 + (b"d" * 254 + b"/") * 14
    path += b"d" * 100 + b"/" + b"f" * (room - len(path) - 101)
    write_file(sites.buffer, path, b"deep")
    assert _carry(sites) == 0
    assert_delivered_once(sites, {path: b"deep"})
