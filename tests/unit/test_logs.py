"""One event is one line, and no trouble with the log becomes trouble with the work."""

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import wording
from common.config.sections import LoggingConfig
from common.logs import LineFormatter, LogFile, LogStream, Steady, configure
from common.process import run

LOGGER = logging.getLogger("dbb.test")


class Clock:
    """A monotonic clock that goes when it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def logged(message: str, *args: object) -> str:
    """The line that a call gives; without the logger, which pytest listens to as well."""
    stream = io.StringIO()
    handler = LogStream(stream)
    handler.setFormatter(LineFormatter("%(message)s"))
    handler.handle(record(message, *args))
    return stream.getvalue()


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("dbb.test", logging.INFO, "path", 1, message, args, None)


def test_messages_go_to_standard_error_in_the_form_of_the_originals(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(LoggingConfig())
    LOGGER.info("carried %d files", 3)
    LOGGER.debug("not told")
    assert capsys.readouterr().err.endswith(":dbb.test:INFO:carried 3 files\n")


def test_a_message_is_one_line_that_cannot_steer_a_terminal() -> None:
    assert logged("two\nlines, \x1b[2J and \udcff") == "two\\nlines, \\x1b[2J and \\xff\n"


def test_a_path_is_escaped_once() -> None:
    assert logged("sent %s", wording.path(b"a\\b\n\xff")) == "sent a\\\\b\\n\\xff\n"


def test_a_traceback_is_part_of_its_line() -> None:
    stream = io.StringIO()
    configure(LoggingConfig(format="%(levelname)s\t%(message)s"), stream=stream)
    try:
        raise ValueError("broken\nwork")
    except ValueError:
        LOGGER.exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("ERROR\tfailed\\nTraceback (most recent call last):\\n")
    assert line.endswith("ValueError: broken\\nwork")


def test_a_malformed_call_is_logged_as_it_was_made() -> None:
    assert logged("removed %d of %d", "x") == "removed %d of %d ('x',)\n"


def test_json_gives_one_object_a_line() -> None:
    stream = io.StringIO()
    configure(LoggingConfig(json=True), stream=stream)
    try:
        raise ValueError("broken")
    except ValueError:
        LOGGER.exception("failed:\n%s", "é\udcff")
    LOGGER.warning("next")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["level"], first["logger"], first["message"]) == ("ERROR", "dbb.test", "failed:\né\\xff")
    assert first["exception"].endswith("ValueError: broken")
    assert set(second) == {"time", "level", "logger", "message"}


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("earlier\n")
    configure(LoggingConfig(file=path, format="%(message)s"))
    LOGGER.info("now, é")
    assert path.read_text("utf-8") == "earlier\nnow, é\n"


def test_configuring_again_replaces_what_was_configured_before(tmp_path: Path) -> None:
    for name in ("one", "two"):
        configure(LoggingConfig(file=tmp_path / name, format="%(message)s", level="WARNING"))
        LOGGER.info("too little")
        LOGGER.warning(name)
    assert [(tmp_path / name).read_text() for name in ("one", "two")] == ["one\n", "two\n"]


def test_quiet_keeps_the_stream_to_errors_and_debug_prevails() -> None:
    stream = io.StringIO()
    configure(LoggingConfig(format="%(message)s"), stream=stream, stream_level=logging.ERROR)
    LOGGER.warning("hidden")
    LOGGER.error("told")
    configure(LoggingConfig(format="%(message)s"), stream=stream, level="DEBUG")
    LOGGER.debug("told as well")
    assert stream.getvalue() == "told\ntold as well\n"


def test_a_file_is_rotated_by_size(tmp_path: Path) -> None:
    config = {"rotate": "size", "maxbytes": "100B", "backup_count": "2", "format": "%(message)s"}
    configure(LoggingConfig.model_validate({"file": str(tmp_path / "log"), **config}))
    for number in range(40):
        LOGGER.info("message %02d", number)
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]
    assert all((tmp_path / name).stat().st_size <= 100 for name in os.listdir(tmp_path))


def test_a_file_is_rotated_by_time(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("yesterday\n")
    os.utime(path, (86_400, 86_400))
    configure(LoggingConfig(file=path, rotate="TIME", when="D", backup_count=3, format="%(message)s"))
    LOGGER.info("today")
    assert path.read_text() == "today\n"
    assert [old.read_text() for old in tmp_path.glob("log.*")] == ["yesterday\n"]


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configure(LoggingConfig(file=path, format="%(message)s"))
    LOGGER.info("before")
    path.rename(tmp_path / "log.1")
    LOGGER.info("after")
    assert path.read_text() == "after\n"


@pytest.mark.parametrize("rotate", [None, "SIZE", "TIME"])
def test_a_directory_that_is_gone_sends_messages_to_standard_error_and_is_told_once(
    rotate: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    config = {"rotate": rotate, "maxbytes": "1MB", "backup_count": "1", "format": "%(message)s"}
    configure(LoggingConfig.model_validate({"file": str(directory / "log"), **config}))
    LOGGER.info("in the file")
    directory.rename(tmp_path / "elsewhere")
    LOGGER.info("first")
    LOGGER.info("second")
    told, *rest = capsys.readouterr().err.splitlines()
    assert told.startswith("the log file can't be written: [Errno 2] No such file or directory")
    assert rest == ["first", "second"]


def test_a_full_disk_stops_nothing_and_the_file_is_used_again_later(tmp_path: Path) -> None:
    path, clock, stream = tmp_path / "log", Clock(), LogStream(elsewhere := io.StringIO())
    path.symlink_to("/dev/full")
    stream.setFormatter(LineFormatter("%(message)s"))
    file = LogFile(LoggingConfig(file=path, format="%(message)s"), stream, clock)
    file.handle(record("into a full disk"))
    path.unlink()
    file.handle(record("too early"))
    clock.now += 10
    file.handle(record("back"))
    file.close()
    told, *rest = elsewhere.getvalue().splitlines()
    assert "No space left on device" in told
    assert rest == ["into a full disk", "too early"]
    first, second = path.read_text().splitlines()
    assert first.startswith("the log file can be written again")
    assert second == "back"


def test_messages_of_a_lost_file_go_to_a_spare_one_and_to_standard_error_after_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spare = tmp_path / "spare"
    lost, form = tmp_path / "nowhere" / "log", "%(message)s"
    configure(LoggingConfig(file=lost, format=form), spare=LoggingConfig(file=spare, format=form))
    LOGGER.info("first")
    told, *rest = spare.read_text().splitlines()
    assert told.startswith("the log file can't be written: [Errno 2] No such file or directory")
    assert told.endswith(f"; messages go to {spare}")
    assert (rest, capsys.readouterr().err) == (["first"], "")
    spare.unlink()
    spare.mkdir()
    LOGGER.info("second")
    told, *rest = capsys.readouterr().err.splitlines()
    assert told.endswith("; messages go to standard error")
    assert rest == ["second"]


def test_a_line_that_a_full_disk_cut_off_is_ended_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"whole\ncut off in \xc3")
    configure(LoggingConfig(file=path, format="%(message)s"))
    LOGGER.info("next")
    configure(LoggingConfig(file=path, format="%(message)s"))
    LOGGER.info("last")
    assert path.read_bytes() == b"whole\ncut off in \xc3\nnext\nlast\n"


def test_a_file_that_fails_again_and_again_is_told_as_rarely_as_all_that_lasts(tmp_path: Path) -> None:
    path, clock, stream = tmp_path / "log", Clock(), LogStream(elsewhere := io.StringIO())
    stream.setFormatter(LineFormatter("%(message)s"))
    file = LogFile(LoggingConfig(file=path, format="%(message)s"), stream, clock)
    for _ in range(50):
        path.symlink_to("/dev/full")
        file.handle(record("lost"))
        path.unlink()
        clock.now += 3
        file.handle(record("kept"))
        path.rename(tmp_path / "old")
    file.close()
    told = elsewhere.getvalue()
    assert told.count("lost") == 50
    assert 2 <= told.count("can't be written") <= 15


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_a_broken_standard_error_is_borne_in_silence(redirection: str) -> None:
    program = (
        "import logging; from common.logs import configure; from common.config.sections import LoggingConfig;"
        "configure(LoggingConfig()); logging.error('into the void'); print('went on')"
    )
    done = run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, program],
        cwd=Path(__file__).parents[2],
    )
    assert (done.exit_code, done.stdout) == (0, b"went on\n")


def test_what_lasts_is_said_once_and_then_once_a_minute() -> None:
    clock = Clock()
    steady = Steady(clock)
    said = []
    for second in range(130):
        clock.now = float(second)
        if steady.due("endpoint", "unreachable"):
            said.append(second)
    assert said == [0, 60, 120]


def test_another_state_is_said_at_once_but_changing_to_and_fro_is_not() -> None:
    steady = Steady(Clock())
    said = [steady.due("endpoint", state) for state in ("refused", "timed out", "refused", "timed out")]
    assert said == [True, True, False, False]


def test_what_ended_tells_how_long_it_lasted_and_is_news_when_it_comes_back() -> None:
    clock = Clock()
    steady = Steady(clock)
    steady.due("endpoint")
    clock.now += 30
    assert steady.ended("endpoint") == 30
    assert steady.ended("endpoint") is None
    assert steady.due("endpoint")


def test_what_comes_and_goes_all_the_time_is_said_now_and_then() -> None:
    clock = Clock()
    steady = Steady(clock)
    said, over = [], []
    for second in range(60):
        clock.now = float(second)
        if second % 2:
            over += [second] if steady.ended("endpoint") is not None else []
        elif steady.due("endpoint", "refused"):
            said.append(second)
    assert said == [0, 10, 20, 30, 40, 50]
    assert over == [1, 11, 21, 31, 41, 51]
