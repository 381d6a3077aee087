"""Walks through real directories, some of which change under the walk."""

import os
import shutil
import socket
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from common.files import BufferedFile, Fence
from common.mounts import filesystem
from common.scan import Odd, Page, Scanner, Unreadable
from common.tree import Tree
from tests.apart import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, apart, give_up, mount, own_namespaces

HOSTILE = [
    b"plain.fits",
    b"with space",
    b" leading and trailing ",
    b"new\nline",
    b"-rf",
    b"$(touch pwned)",
    b"`id`;'\"\\",
    b"caf\xc3\xa9",
    b"not utf-8 \xff\xfe",
    b"\x01\x7f",
    b"* ?[a]",
    b"gone (deleted)",
    b"x" * 255,
]


@pytest.fixture
def buffer(tmp_path: Path) -> Path:
    path = tmp_path / "buffer"
    path.mkdir()
    return path


def scanner(buffer: Path, *, exclude: tuple[str, ...] = (), page: int = 1000) -> Scanner:
    return Scanner(os.fsencode(buffer), exclude=exclude, page=page)


def walked(buffer: Path, *exclude: str) -> Page:
    """All that a walk sees, in the order of its paths."""
    pages = list(scanner(buffer, exclude=exclude).pages())
    return Page(
        tuple(sorted((file for page in pages for file in page.files), key=lambda file: file.path)),
        tuple(sorted((odd for page in pages for odd in page.odd), key=lambda odd: odd.path)),
        tuple(sorted((bad for page in pages for bad in page.unreadable), key=lambda bad: bad.path)),
    )


def write(path: Path, content: str = "") -> BufferedFile:
    """Make a file and its directories; the path is kept as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return BufferedFile(os.fsencode(path), Fence.of(path.stat()))


def names(page: Page) -> list[bytes]:
    return [file.path for file in page.files]


def test_every_file_is_seen_with_its_fence(buffer: Path) -> None:
    write(buffer / "a", "1")
    write(buffer / "night/b", "22")
    write(buffer / "night/raw/c", "333")
    (buffer / "empty").mkdir()
    assert walked(buffer) == Page(
        tuple(
            BufferedFile(path, Fence.of(os.stat(os.fsencode(buffer) + b"/" + path)))
            for path in (b"a", b"night/b", b"night/raw/c")
        )
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_is_seen_as_it_is(buffer: Path, name: bytes) -> None:
    root = os.fsencode(buffer)
    os.mkdir(os.path.join(root, name))
    inner = os.path.join(name, name)
    Path(os.fsdecode(os.path.join(root, inner))).touch()
    assert names(walked(buffer)) == [inner]
    assert names(scanner(buffer).look([inner])) == [inner]


def test_what_is_no_regular_file_is_named_and_left_alone(buffer: Path) -> None:
    write(buffer / "file")
    (buffer / "link").symlink_to("file")
    (buffer / "dangling").symlink_to("nowhere")
    os.mkfifo(buffer / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(buffer / "socket"))
    page = walked(buffer)
    assert names(page) == [b"file"]
    assert page.odd == (
        Odd(b"dangling", "symbolic link"),
        Odd(b"fifo", "fifo"),
        Odd(b"link", "symbolic link"),
        Odd(b"socket", "socket"),
    )


def test_devices_are_named(tmp_path: Path) -> None:
    page = Scanner(b"/dev").look([b"null"])
    assert page == Page(odd=(Odd(b"null", "character device"),))


def test_links_to_directories_are_not_entered_even_where_they_form_a_loop(buffer: Path) -> None:
    write(buffer / "night/file")
    (buffer / "night/up").symlink_to("..")
    (buffer / "night/self").symlink_to(".")
    (buffer / "whole").symlink_to(buffer)
    page = walked(buffer)
    assert names(page) == [b"night/file"]
    assert [odd.path for odd in page.odd] == [b"night/self", b"night/up", b"whole"]


def test_the_buffer_itself_may_be_a_link(tmp_path: Path, buffer: Path) -> None:
    write(buffer / "night/file")
    (tmp_path / "alias").symlink_to(buffer)
    assert names(walked(tmp_path / "alias")) == [b"night/file"]


def test_what_is_excluded_is_passed_over_in_silence(buffer: Path) -> None:
    for name in ("a.fits", "a.fits.tmp", "tmp/b.fits", "café.part"):
        write(buffer / name)
    (buffer / "link.tmp").symlink_to("a.fits")
    assert walked(buffer, r"\.tmp$", r"^tmp/", "é") == Page(walked(buffer).files[:1])
    assert scanner(buffer, exclude=(r"\.tmp$",)).look([b"a.fits.tmp", b"link.tmp"]) == Page()


def test_a_name_that_is_no_utf8_can_be_excluded(buffer: Path) -> None:
    Path(os.fsdecode(os.fsencode(buffer) + b"/\xff.bad")).touch()
    assert walked(buffer, r"\.bad$") == Page()


def test_a_page_holds_no_more_than_it_may(buffer: Path) -> None:
    for number in range(25):
        write(buffer / f"{number % 3}/{number}")
    pages = list(scanner(buffer, page=10).pages())
    assert [len(page.files) for page in pages] == [10, 10, 5]
    assert len({file.path for page in pages for file in page.files}) == 25


def test_the_memory_for_a_walk_is_that_of_a_page(buffer: Path) -> None:
    first = write(buffer / "0/file")
    for number in range(1, 20_000):
        if number % 1000 == 0:
            (buffer / str(number // 1000)).mkdir()
        os.link(first.path, buffer / f"{number // 1000}/{number}")
    walk = scanner(buffer, page=100)
    tracemalloc.start()
    try:
        assert sum(len(page.files) for page in walk.pages()) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()


def test_what_vanishes_during_a_walk_is_passed_over(buffer: Path) -> None:
    for number in range(20):
        write(buffer / f"{number}/file")
        write(buffer / f"file{number}")
    pages = scanner(buffer, page=1).pages()
    assert next(pages).files
    shutil.rmtree(buffer)
    for page in pages:
        assert not page.unreadable


def test_a_walk_that_is_given_up_leaves_nothing_open(buffer: Path) -> None:
    for number in range(5):
        write(buffer / f"night/{number}")
    before = os.listdir("/proc/self/fd")
    pages = scanner(buffer, page=1).pages()
    next(pages)
    assert len(os.listdir("/proc/self/fd")) > len(before)
    pages.close()  # type: ignore[attr-defined]
    assert os.listdir("/proc/self/fd") == before


def test_a_directory_that_is_swapped_for_a_link_is_not_followed(tmp_path: Path, buffer: Path) -> None:
    write(tmp_path / "secret/file")
    for number in range(3):
        write(buffer / f"file{number}")
    write(buffer / "night/file")
    pages = scanner(buffer, page=1).pages()
    seen = names(next(pages))
    (buffer / "night").rename(tmp_path / "elsewhere")
    (buffer / "night").symlink_to(tmp_path / "secret")
    seen += [path for page in pages for path in names(page)]
    assert sorted(seen) == [b"file0", b"file1", b"file2"]


def test_a_directory_on_the_way_that_is_swapped_for_a_link_is_not_followed(
    tmp_path: Path, buffer: Path
) -> None:
    write(tmp_path / "secret/raw/file")
    for number in range(3):
        write(buffer / f"night/file{number}")
    write(buffer / "night/raw/file")
    pages = scanner(buffer, page=1).pages()
    seen = names(next(pages))
    (buffer / "night").rename(tmp_path / "elsewhere")
    (buffer / "night").symlink_to(tmp_path / "secret")
    seen += [path for page in pages for path in names(page)]
    assert sorted(seen) == [b"night/file0", b"night/file1", b"night/file2"]
    assert scanner(buffer).look([b"night/raw/file"]) == Page()


def test_a_look_sees_only_what_it_is_asked_for(buffer: Path) -> None:
    for name in ("a", "night/b", "night/c"):
        write(buffer / name)
    (buffer / "link").symlink_to("a")
    page = scanner(buffer).look([b"night/b", b"a", b"link", b"night", b"gone", b"no/such/place", b"a/b"])
    assert sorted(names(page)) == [b"a", b"night/b"]
    assert page.odd == (Odd(b"link", "symbolic link"),)
    assert page.unreadable == ()


def test_a_buffer_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert walked(tmp_path / "none") == Page(unreadable=(Unreadable(b"", "No such file or directory"),))
    assert scanner(tmp_path / "none").look([b"a"]) == Page()


def walk_without_power(buffer: Path) -> Page:
    give_up(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)
    return walked(buffer)


def test_a_directory_that_may_not_be_read_is_told_and_stops_nothing(buffer: Path) -> None:
    for name in ("closed/a", "listed/b", "listed/c", "open/d"):
        write(buffer / name)
    (buffer / "closed").chmod(0o000)
    (buffer / "listed").chmod(0o400)
    page = apart(walk_without_power, buffer)
    assert names(page) == [b"open/d"]
    assert page.unreadable == (
        Unreadable(b"closed", "Permission denied"),
        Unreadable(b"listed", "Permission denied"),
    )


def test_a_tree_may_be_as_deep_as_a_path_may_be_long(buffer: Path) -> None:
    here = os.open(buffer, os.O_RDONLY)
    for level in range(2060):
        os.mkdir("d", dir_fd=here)
        if level % 1000 == 0:
            os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        page = walked(buffer)
        assert sorted(len(path) for path in names(page)) == [1, 2001, 4001]
        [unreadable] = page.unreadable
        assert unreadable.reason == "File name too long"
    finally:
        # Python's own removal is recursive.
        subprocess.run(["rm", "-rf", "--", buffer / "d"], check=True)


def walk_over_a_mount(buffer: Path) -> tuple[bool, str, Page]:
    """Walk a buffer that has a filesystem mounted in it, where the machine allows that."""
    mounted = own_namespaces() and mount("tmpfs", buffer / "disk")
    write(buffer / "disk/night/file")
    with Tree(os.fsencode(buffer)) as tree:
        name = filesystem(tree.open(b"disk"))
    return mounted, name, walked(buffer)


def test_a_filesystem_that_is_mounted_in_the_buffer_is_entered(buffer: Path) -> None:
    (buffer / "disk").mkdir()
    mounted, name, page = apart(walk_over_a_mount, buffer)
    assert names(page) == [b"disk/night/file"]
    assert not page.odd
    assert not page.unreadable
    assert name == "tmpfs" or not mounted
