"""Old files leave real directories, and nothing else does."""

import os
import time
from pathlib import Path

import pytest

from common.files import BufferedFile
from endpoint.cleaning import Look, Remove, Removed, Rest, look, remove
from tests.apart import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, apart, give_up
from tests.loopback import write_file

DAY = 86_400.0
LATER = 40 * DAY
"""So many seconds from now, all that a test makes is old: nobody can make a file that has been there long."""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    path.mkdir()
    return path


def now() -> float:
    return time.time() + LATER


def sighted(cache: Path, *, older_than: float = 30 * DAY, at: float | None = None) -> list[BufferedFile]:
    """All that looks bring, to the end."""
    found: list[BufferedFile] = []
    rest: Rest | None = Rest()
    while rest is not None:
        answer = look(Look(os.fsencode(cache), older_than, rest), at or now())
        assert answer.troubles == ()
        found += answer.files
        rest = answer.rest
    return found


def clean(cache: Path, *, older_than: float = 30 * DAY, at: float | None = None) -> Removed:
    found = tuple(sighted(cache, older_than=older_than, at=at))
    return remove(Remove(os.fsencode(cache), older_than, found), at or now())


def names(files: list[BufferedFile] | tuple[BufferedFile, ...]) -> list[bytes]:
    return sorted(file.path for file in files)


def test_old_files_are_removed_wherever_they_lie_and_whatever_they_are_called(cache: Path) -> None:
    paths = [b"a", b"-rf", b"n/two\nlines", b"n/m/\xff", b"n/$(reboot)", b"n/ ", b".hidden/x"]
    for path in paths:
        write_file(cache, path, b"light")
    assert names(clean(cache).files) == sorted(paths)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_young_files_stay(cache: Path) -> None:
    write_file(cache, b"n/a", b"light")
    assert clean(cache, at=time.time() + 30 * DAY - 60).files == ()
    assert clean(cache, at=time.time() - LATER).files == ()
    assert (cache / "n/a").exists()


def test_a_file_that_has_just_come_is_young_however_old_its_content_is(cache: Path, tmp_path: Path) -> None:
    for name in ("moved", "linked"):
        write_file(tmp_path, name.encode(), b"light")
        os.utime(tmp_path / name, (1, 1))
    os.rename(tmp_path / "moved", cache / "moved")
    os.link(tmp_path / "linked", cache / "linked")
    assert sighted(cache, at=time.time()) == []


def test_links_are_neither_followed_nor_removed(cache: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write_file(outside, b"keep", b"light")
    (cache / "file").symlink_to(outside / "keep")
    (cache / "directory").symlink_to(outside)
    (cache / "nowhere").symlink_to("nowhere")
    os.mkfifo(cache / "fifo")
    assert clean(cache).files == ()
    assert len(list(cache.iterdir())) == 4
    assert (outside / "keep").exists()


def test_a_directory_swapped_for_a_link_leads_nowhere(cache: Path, tmp_path: Path) -> None:
    write_file(cache, b"n/a", b"light")
    found = tuple(sighted(cache))
    os.rename(cache / "n", tmp_path / "n")
    (cache / "n").symlink_to(tmp_path / "n")
    assert remove(Remove(os.fsencode(cache), DAY, found), now()) == Removed()
    assert (tmp_path / "n/a").exists()


def test_the_root_swapped_for_a_link_is_left_alone_and_told(cache: Path, tmp_path: Path) -> None:
    write_file(cache, b"a", b"light")
    found = tuple(sighted(cache))
    os.rename(cache, tmp_path / "elsewhere")
    cache.symlink_to(tmp_path / "elsewhere")
    [trouble] = remove(Remove(os.fsencode(cache), DAY, found), now()).troubles
    assert trouble == f"{cache} can't be cleaned: a link lies on the way to it since the manager began"
    assert look(Look(os.fsencode(cache), DAY), now()).files == ()
    assert (tmp_path / "elsewhere/a").exists()


@pytest.mark.parametrize(
    "deed", ["write", "replace", "touch", "remove", "remove directory", "make directory"]
)
def test_what_has_changed_since_it_was_seen_stays_and_what_is_gone_is_no_trouble(
    cache: Path, deed: str
) -> None:
    path = Path(os.fsdecode(write_file(cache, b"n/a", b"light")))
    found = tuple(sighted(cache))
    match deed:
        case "write":
            path.write_bytes(b"other")
        case "replace":
            write_file(cache, b"b", b"other")
            os.replace(cache / "b", path)
        case "touch":
            path.touch()
        case "remove" | "make directory":
            path.unlink()
            if deed == "make directory":
                path.mkdir()
        case "remove directory":
            path.unlink()
            path.parent.rmdir()
    assert remove(Remove(os.fsencode(cache), DAY, found), now()) == Removed()
    assert path.exists() == (not deed.startswith("remove"))


def test_what_is_not_there_is_told(cache: Path) -> None:
    missing = os.fsencode(cache / "missing")
    assert look(Look(missing, DAY), now()).troubles == (
        f"{cache}/missing can't be cleaned: No such file or directory",
    )


def test_what_can_not_be_read_or_removed_is_told_and_the_rest_goes(cache: Path) -> None:
    for path in (b"closed/a", b"read-only/b", b"open/c"):
        write_file(cache, path, b"light")
    (cache / "read-only").chmod(0o555)
    (cache / "closed").chmod(0)
    try:
        troubles, removed = apart(_clean_powerless, os.fsencode(cache), now())
    finally:
        (cache / "closed").chmod(0o755)
        (cache / "read-only").chmod(0o755)
    assert sorted(troubles) == [f"{cache}/closed: Permission denied", f"{cache}/read-only: Permission denied"]
    assert removed == [b"open/c"]


def _clean_powerless(cache: bytes, at: float) -> tuple[list[str], list[bytes]]:
    if os.geteuid() == 0:
        give_up(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)
    seen = look(Look(cache, DAY), at)
    gone = remove(Remove(cache, DAY, seen.files), at)
    return [*seen.troubles, *gone.troubles], [file.path for file in gone.files]


@pytest.mark.parametrize("shape", ["one directory", "many", "deep"])
def test_looks_go_on_where_they_were_and_bring_every_file_once(cache: Path, shape: str) -> None:
    directories = {"one directory": b"", "many": b"%d/", "deep": b"d/" * 9}
    paths = [
        (directories[shape] % (number % 5) if shape == "many" else directories[shape][: number % 10 * 2])
        + b"f%d" % number
        for number in range(50)
    ]
    for path in paths:
        write_file(cache, path, b"x")
    found: list[BufferedFile] = []
    rest: Rest | None = Rest()
    while rest is not None:
        answer = look(Look(os.fsencode(cache), DAY, rest, page=7), now())
        assert len(answer.files) < 14
        found += answer.files
        rest = answer.rest
    assert names(found) == sorted(paths)
