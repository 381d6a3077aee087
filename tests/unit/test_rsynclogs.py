"""What rsync's logs name is seen, whatever the logs have been through."""

import os
from datetime import date
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.scan import Page
from endpoint.config import EndpointConfig, effective, load
from endpoint.premises import Premises
from endpoint.rsynclogs import RsyncLogs, Window, paths_named
from tests.loopback import write_file

DAY = date(2026, 11, 25)
PREFIX = b"2026/11/25 04:31:53 [20171] "
NOW = 1_800_000_000.0


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Site:
    """Logs and a storage, and one reader of them."""

    def __init__(self, directory: Path, window: Window, exclude: tuple[str, ...] = ()) -> None:
        self.logs, self.storage = directory / "logs", directory / "storage"
        for path in (self.logs, self.storage):
            path.mkdir(exist_ok=True)
        self.clock = Clock()
        self.reader = RsyncLogs(
            os.fsencode(self.logs),
            os.fsencode(self.storage),
            window,
            exclude=exclude,
            clock=self.clock,
            wall=lambda: NOW,
            today=lambda: DAY,
        )

    def store(self, *paths: bytes) -> None:
        for path in paths:
            write_file(self.storage, path, b"light")

    def log(
        self, *lines: bytes, name: str = "20261125/rsync.log", end: bytes = b"\n", age: float = 100
    ) -> Path:
        """Write a log that was left alone so many seconds ago."""
        path = self.logs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\n".join(lines) + (end if lines else b""))
        os.utime(path, (NOW - age, NOW - age))
        return path

    def seen(self) -> list[bytes]:
        """The files that one round sees."""
        return sorted(file.path for page in self.round() for file in page.files)

    def told(self) -> list[tuple[bytes, str]]:
        """What one round can't look at."""
        return [(one.path, one.reason) for page in self.round() for one in page.unreadable]

    def round(self) -> list[Page]:
        return list(self.reader.pages())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, Window())


def line(path: bytes) -> bytes:
    return PREFIX + b">f+++++++++ " + path


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (PREFIX + b"<f+++++++++ n/a.fits", b"n/a.fits"),
        (PREFIX + b">f.st...... n/a b.fits", b"n/a b.fits"),
        (PREFIX + b"hf+++++++++ n/a => n/b", b"n/a"),
        (b">f+++++++++ n/a.fits", b"n/a.fits"),
        (b">f+++++++ n/a.fits", b"n/a.fits"),
        (b"send <f+++++++++ n/a.fits", b"n/a.fits"),
        (b"2026/11/25 04:31:53 <f+++++++++ n/a.fits", b"n/a.fits"),
        (PREFIX + b">f+++++++++ two\\#012lines\\#134", b"two\nlines\\"),
        (PREFIX + b">f+++++++++ \xfe\xff", b"\xfe\xff"),
        (PREFIX + b">f+++++++++ >f+++++++++ a", b">f+++++++++ a"),
    ],
)
def test_a_line_names_a_file(text: bytes, first: bytes) -> None:
    assert paths_named(text)[0] == first


@pytest.mark.parametrize(
    "text",
    [
        b"",
        PREFIX + b"building file list",
        PREFIX + b"cd+++++++++ n1/",
        PREFIX + b"cL+++++++++ n1/link -> n1/hard",
        PREFIX + b".f..t...... n/a.fits",
        PREFIX + b"*deleting   n/a.fits",
        PREFIX + b"sent 456 bytes  received 138 bytes  total size 16",
        PREFIX + b">f+++++++++",
        b"x>f+++++++++ a",
    ],
)
def test_another_line_names_none(text: bytes) -> None:
    assert paths_named(text) == ()


def test_the_third_word_is_the_path_as_the_original_manager_had_it() -> None:
    assert b"n/a.fits" in paths_named(b"<f+++++++++ 20 n/a.fits 7")
    assert b"n/a.fits" in paths_named(b"send <f+++++++++ n/a.fits 20")


def test_what_logs_name_is_seen_and_nothing_else(site: Site) -> None:
    site.store(b"n/a.fits", b"n/a b", b"other.fits", b"c.fits", b"\xff/d")
    site.log(PREFIX + b"building file list", line(b"n/a.fits"), line(b"n/a b"), line(b"n/a.fits"))
    site.log(b"send <f+++++++++ c.fits 20", b"1 <f+++++++++ \xff/d", name="20261125/cam/rsync-2.log")
    site.log(line(b"other.fits"), name="20261125/other.txt")
    site.log(line(b"other.fits"), name="other/rsync.log")
    assert site.seen() == [b"c.fits", b"n/a b", b"n/a.fits", b"\xff/d"]


def test_the_days_around_one_are_read(tmp_path: Path) -> None:
    site = Site(tmp_path, Window(date(2026, 3, 1), past_days=2, future_days=0))
    for number, day in enumerate(("20260226", "20260227", "20260301", "20260302")):
        site.store(b"%d" % number)
        site.log(line(b"%d" % number), name=f"{day}/rsync.log")
    assert site.seen() == [b"1", b"2"]


def test_today_is_the_day_when_none_is_named(site: Site) -> None:
    for number, day in enumerate(("20261123", "20261124", "20261126", "20261127")):
        site.store(b"%d" % number)
        site.log(line(b"%d" % number), name=f"{day}/rsync.log")
    assert site.seen() == [b"1", b"2"]


def test_a_log_is_read_once_it_has_been_left_alone(site: Site) -> None:
    site.store(b"a", b"b")
    site.log(line(b"a"), age=59)
    assert site.seen() == []
    site.log(line(b"a"), line(b"b"), age=61)
    assert site.seen() == [b"a", b"b"]


def test_a_log_of_the_future_is_read_once_it_is_seen_to_be_left_alone(site: Site) -> None:
    site.store(b"a")
    site.log(line(b"a"), age=-1e6)
    assert site.seen() == []
    site.clock.now += 61
    assert site.seen() == [b"a"]


def test_an_unfinished_last_line_is_tried_and_not_told(tmp_path: Path) -> None:
    site = Site(tmp_path, Window(delay=0))
    site.store(b"night/a.fits", b"night/b.fits")
    site.log(line(b"night/a.fits"), line(b"night/b.fi"), end=b"")
    assert site.told() == []
    assert site.seen() == [b"night/a.fits"]
    site.log(line(b"night/a.fits"), line(b"night/b.fits"), end=b"")
    assert site.seen() == [b"night/a.fits", b"night/b.fits"]


def test_rotated_and_truncated_logs_are_survived(tmp_path: Path) -> None:
    site = Site(tmp_path, Window(delay=0))
    site.store(b"a", b"b", b"c")
    path = site.log(line(b"a"))
    assert site.seen() == [b"a"]
    path.rename(path.with_name("rsync.log.1"))
    site.log(line(b"b"))
    assert site.seen() == [b"a", b"b"]
    path.write_bytes(line(b"c"))
    assert b"c" in site.seen()
    path.unlink()
    assert site.seen() == [b"a"]


def test_a_named_file_that_is_not_there_is_told_and_looked_for_again(site: Site) -> None:
    site.store(b"a")
    site.log(line(b"a"), line(b"n/late.fits"))
    reason = "it is not there, though the rsync log 20261125/rsync.log names it"
    assert site.told() == [(b"n/late.fits", reason)]
    site.store(b"n/late.fits")
    assert site.seen() == [b"a", b"n/late.fits"]


def test_of_very_many_that_are_not_there_the_first_are_named(site: Site) -> None:
    path = site.log(*(line(b"n/%d" % number) for number in range(5000)))
    told = site.told()
    assert len(told) == 101
    assert told[-1] == (os.fsencode(path), "5,000 files that it names are not there")


@pytest.mark.parametrize(
    "name", [b"../out", b"/etc/passwd", b"a/../../out", b".", b"nul\0", b"x" * 5000, b""]
)
def test_no_name_leads_out_of_storage_or_stops_the_reading(site: Site, tmp_path: Path, name: bytes) -> None:
    write_file(tmp_path, b"out", b"dark")
    (site.storage / "link").symlink_to(tmp_path)
    site.store(b"a")
    site.log(line(name), line(b"link/out"), line(b"a"))
    assert site.seen() == [b"a"]


def test_an_absolute_name_below_storage_is_relative_to_it(site: Site) -> None:
    site.store(b"n/a")
    site.log(line(os.fsencode(site.storage) + b"/n/a"), line(b"./n//a"))
    assert site.seen() == [b"n/a"]


def test_nonsense_is_passed_over(site: Site) -> None:
    site.store(b"a")
    site.log(os.urandom(200_000).replace(b">f", b""), b"\0" * 300_000, line(b"a"))
    os.mkfifo(site.logs / "20261125" / "rsync-fifo.log")
    (site.logs / "20261125" / "rsync-gone.log").symlink_to("nowhere")
    (site.logs / "20261125" / "rsync-directory.log").mkdir()
    assert site.seen() == [b"a"]


def test_excluded_files_and_directories_are_passed_over_in_silence(tmp_path: Path) -> None:
    site = Site(tmp_path, Window(), exclude=(r"\.tmp$",))
    site.store(b"a.tmp", b"n/b")
    site.log(line(b"a.tmp"), line(b"gone.tmp"), line(b"n"))
    assert site.seen() == []
    assert site.told() == []


def test_a_log_that_is_marked_as_dealt_with_is_passed_over_until_it_changes(site: Site) -> None:
    site.store(b"a")
    site.log(line(b"a"), age=200)
    site.log(name="20261125/rsync.log.done", age=200)
    assert site.seen() == []
    site.log(line(b"a"), age=100)
    assert site.seen() == [b"a"]


def test_logs_that_are_not_there_are_told(tmp_path: Path) -> None:
    site = Site(tmp_path, Window())
    site.logs.rmdir()
    assert site.told() == [(os.fsencode(site.logs), "no directory of rsync logs is there")]


def _config(tmp_path: Path, finder: str) -> EndpointConfig:
    path = tmp_path / "endpoint.yaml"
    path.write_text(f"endpoint: {{buffer: /logs, storage: /storage}}\nfinder: {finder}\n")
    return load(path, {})


def test_the_configuration_says_which_logs_are_read(tmp_path: Path) -> None:
    config = _config(tmp_path, "{search: parse_rsync_logs, date: 2026-11-25, past_days: 3, delay: 2m}")
    finder = config.finder
    assert (finder.day, finder.past_days, finder.future_days, finder.delay) == (DAY, 3, 1, 120)
    assert (finder.source, finder.extension) == (None, "done")
    assert config.notes() == ()
    path = tmp_path / "shown.yaml"
    path.write_text(effective(config))
    assert load(path, {}) == config


def test_files_that_logs_name_are_ingested_where_they_lie(tmp_path: Path) -> None:
    premises = Premises.of(_config(tmp_path, "{search: parse_rsync_logs}"))
    assert (premises.buffer, premises.storage, premises.home) == (b"/storage", None, b"/storage")


def test_what_is_no_day_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"endpoint.yaml:2: finder.date: must be a date such as 2026-11-25"):
        _config(tmp_path, "{search: parse_rsync_logs, date: yesterday}")


def test_keys_that_a_scan_has_no_use_for_are_told(tmp_path: Path) -> None:
    config = _config(tmp_path, "{delay: 60, date: 2026-11-25}")
    assert config.notes() == (
        "finder.date: is for parse_rsync_logs alone",
        "finder.delay: is for parse_rsync_logs alone",
    )
