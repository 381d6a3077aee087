"""What the cleaner decides: what is old, what must stay, and what it says."""

import os
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import BufferedFile, Fence
from common.ledger.rows import Version
from endpoint.cleaner import Cleaner, Rules
from endpoint.cleaning import Look, Remove, Removed, Rest, Sighted, Sweep, Swept, is_old
from endpoint.lifecycle import FINISHED, LIFECYCLE

FENCE = Fence(1, 10, 1_000, 2_000)
OLD = BufferedFile(b"a.dat", FENCE)
RULES = Rules((b"/cache",), 100.0, 50.0, 30.0, b"/buffer", b"/storage")
ALONE = replace(RULES, storage=None)
IN_STORAGE = replace(RULES, directories=(b"/storage",))
IN_BUFFER = replace(RULES, directories=(b"/buffer",))

times = st.floats(0, 4e9)
ages = st.floats(0.001, 1e9)


class Known:
    """A ledger that knows the same versions of every path."""

    def __init__(self, *versions: Version) -> None:
        self._versions = versions

    def versions(self, paths: Sequence[bytes]) -> dict[bytes, tuple[Version, ...]]:
        return dict.fromkeys(paths, self._versions) if self._versions else {}


def version(state: str, fence: Fence = FENCE) -> Version:
    return Version(1, fence, None, state)


def status(mtime: float, ctime: float) -> os.stat_result:
    return os.stat_result((0o100644, 1, 1, 1, 0, 0, 0, 0, mtime, ctime))


def removed_of(rules: Rules, *versions: Version) -> tuple[BufferedFile, ...]:
    """What it has removed of one old file below its directory."""
    cleaner = Cleaner(rules, Known(*versions), 0.0)
    errand = cleaner.errand(0.0)
    assert isinstance(errand, Look)
    cleaner.learn(errand, Sighted((OLD,)), 0.0)
    following = cleaner.errand(0.0)
    return following.files if isinstance(following, Remove) else ()


@given(times, times, ages, times)
def test_a_file_is_old_when_nothing_was_done_to_it_for_long_enough(
    mtime: float, ctime: float, older_than: float, now: float
) -> None:
    found = is_old(status(mtime, ctime), older_than, now)
    assert found == (now - mtime > older_than and now - ctime > older_than)


@given(times, ages, ages)
def test_what_has_come_a_moment_ago_is_never_old(now: float, older_than: float, age: float) -> None:
    assert not is_old(status(now - age, now), older_than, now)
    assert not is_old(status(now, now - age), older_than, now)


@given(times, ages, ages)
def test_age_only_grows(now: float, older_than: float, later: float) -> None:
    at = status(now - older_than, now - older_than)
    assert is_old(at, older_than, now) <= is_old(at, older_than, now + later)


def test_elsewhere_all_that_is_old_goes() -> None:
    assert removed_of(RULES) == (OLD,)
    assert removed_of(replace(RULES, directories=(b"/storage2",))) == (OLD,)


@pytest.mark.parametrize("rules", [IN_BUFFER, IN_STORAGE], ids=["buffer", "storage"])
def test_what_nobody_knows_stays_in_the_buffer_and_in_storage(rules: Rules) -> None:
    assert removed_of(rules) == ()


@pytest.mark.parametrize("rules", [IN_BUFFER, IN_STORAGE], ids=["buffer", "storage"])
@pytest.mark.parametrize("state", LIFECYCLE.states)
def test_only_what_is_done_with_goes(rules: Rules, state: str) -> None:
    goes = state in FINISHED and state != "vanished"
    assert removed_of(rules, version(state)) == ((OLD,) if goes else ())


@pytest.mark.parametrize("state", sorted(set(LIFECYCLE.states) - set(FINISHED)))
def test_a_file_stays_as_long_as_another_version_of_it_is_not_done_with(state: str) -> None:
    assert removed_of(IN_STORAGE, version(state), version("ingested")) == ()


def test_a_directory_above_storage_is_cleaned_with_the_same_care() -> None:
    above = replace(RULES, directories=(b"/",))
    cleaner = Cleaner(above, Known(), 0.0)
    errand = cleaner.errand(0.0)
    inside, outside = BufferedFile(b"storage/a.dat", FENCE), BufferedFile(b"tmp/a.dat", FENCE)
    cleaner.learn(errand, Sighted((inside, outside)), 0.0)
    assert cleaner.errand(0.0) == Remove(b"/", 100.0, (outside,))


def test_notes_and_receipts_stay() -> None:
    cleaner = Cleaner(replace(RULES, directories=(b"/data",), staging=b"/data/staging"), Known(), 0.0)
    errand = cleaner.errand(0.0)
    names = (b"staging/.notes/a.jsonl", b"staging/.receipts/b.jsonl", b"staging/batch-1/c.dat", b"x/.notes/d")
    found = tuple(BufferedFile(name, FENCE) for name in names)
    cleaner.learn(errand, Sighted(found), 0.0)
    assert cleaner.errand(0.0) == Remove(b"/data", 100.0, found[2:])


def test_in_the_buffer_a_version_is_known_by_its_whole_fence() -> None:
    other = replace(FENCE, ctime_ns=3_000)
    assert removed_of(IN_BUFFER, version("ingested", other)) == ()
    assert removed_of(IN_STORAGE, version("ingested", other)) == (OLD,)


@pytest.mark.parametrize("other", [replace(FENCE, size=11), replace(FENCE, mtime_ns=1_001)])
def test_what_is_no_known_version_stays(other: Fence) -> None:
    assert removed_of(IN_STORAGE, version("ingested", other)) == ()


def test_a_round_looks_removes_goes_on_and_sweeps() -> None:
    cleaner = Cleaner(ALONE, Known(), 0.0)
    look = Look(b"/cache", 100.0)
    assert cleaner.errand(0.0) == look
    assert cleaner.errand(0.0) is None
    rest = Rest((b"x",), b"n")
    cleaner.learn(look, Sighted((OLD,), rest), 1.0)
    remove = Remove(b"/cache", 100.0, (OLD,))
    assert cleaner.errand(1.0) == remove
    cleaner.learn(remove, Removed((OLD,)), 2.0)
    assert cleaner.errand(2.0) == replace(look, rest=rest)
    cleaner.learn(replace(look, rest=rest), Sighted(), 3.0)
    sweep = Sweep(b"/cache", 50.0)
    assert cleaner.errand(3.0) == sweep
    cleaner.learn(sweep, Swept(), 4.0)
    assert cleaner.errand(33.9) is None
    assert cleaner.errand(34.0) == look


def test_when_its_worker_dies_the_round_is_over_and_the_next_one_comes() -> None:
    cleaner = Cleaner(ALONE, Known(), 0.0)
    errand = cleaner.errand(0.0)
    cleaner.learn(errand, object(), 1.0)
    assert cleaner.errand(30.9) is None
    assert cleaner.errand(31.0) == errand


def test_without_directories_the_buffer_alone_is_swept() -> None:
    cleaner = Cleaner(replace(RULES, directories=()), Known(), 0.0)
    assert cleaner.errand(0.0) is None
    assert cleaner.errand(60.0) == Sweep(b"/buffer", 50.0)


def test_where_files_stay_in_the_buffer_it_is_not_swept() -> None:
    cleaner = Cleaner(replace(RULES, directories=(), storage=None), Known(), 0.0)
    assert cleaner.errand(1e9) is None
