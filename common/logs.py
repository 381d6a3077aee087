"""Messages about the work: one event a line, into a file or to standard error, whatever befalls either."""

import copy
import json
import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from common import wording
from common.supervisor import priority

if TYPE_CHECKING:  # pydantic, which this would import, is nothing for a worker
    from common.config.sections import LoggingConfig

_REOPEN = 2.0
"""Seconds after which a log file that failed is tried again."""


def configure(
    config: "LoggingConfig",
    *,
    spare: "LoggingConfig | None" = None,
    level: str | None = None,
    stream: TextIO | None = None,
    stream_level: int = logging.NOTSET,
) -> None:
    """Send all messages where the configuration says; may be called again with another one.

    Parameters
    ----------
    spare
        Says which file gets the messages while the other one can't be written; standard error after that.
    level
        Prevails over the configuration's, for ``--debug``.
    stream
        Used instead of standard error.
    stream_level
        The least important messages for the stream, for ``--quiet``; a file gets all.
    """
    handler: logging.Handler = LogStream(stream)
    handler.setLevel(stream_level)
    handler.setFormatter(_formatter(config))
    elsewhere = "standard error"
    for settings in (spare, config):
        if settings is not None and settings.file is not None:
            handler = LogFile(settings, handler, elsewhere=elsewhere)
            elsewhere = wording.text(os.fspath(settings.file))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, LogStream | LogFile)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level or config.level)


def unwritable(file: Path) -> str:
    """Why messages can't go into that file, as far as can be told without making it; empty: they can."""
    directory = file.parent
    if not directory.is_dir():
        return f"there is no directory {directory}"
    place = file if file.exists() else directory
    if file.is_dir():
        return "it is a directory"
    if not os.access(place, os.W_OK, effective_ids=True):
        return f"{place} can't be written"
    return ""


class LineFormatter(logging.Formatter):
    """An event as one line, traceback included, in which nothing can steer a terminal."""

    def __init__(self, form: str) -> None:
        super().__init__(form, validate=False)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(_sound(record))
        # A tab can only come from the form by now, where it parts columns.
        return "\t".join(map(wording.text, text.split("\t"))).replace("\n", "\\n")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (its name in logging)
        record.message = wording.text(record.message)
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """An event as a JSON object of one line: time, level, logger, message, and exception if any."""

    def format(self, record: logging.LogRecord) -> str:
        record = _sound(record)
        time_ = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        event = {
            "time": time_.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": wording.text(record.getMessage()),
        }
        if record.exc_info:
            event["exception"] = wording.text(self.formatException(record.exc_info))
        return json.dumps(event, ensure_ascii=False)


class LogStream(logging.Handler):
    """Standard error or another stream; when it is closed or broken, messages are lost in silence."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        # Looked up each time: a test, or the live table, may put another one in its place.
        stream = self._stream or sys.stderr
        with suppress(OSError, ValueError, AttributeError):
            stream.write(f"{priority(stream, record.levelno)}{self.format(record)}\n")
            stream.flush()


class LogFile(logging.Handler):
    """A log file. While it can't be written, messages go elsewhere, and why is said as all that lasts."""

    def __init__(
        self,
        config: "LoggingConfig",
        fallback: logging.Handler,
        clock: Callable[[], float] = time.monotonic,
        *,
        elsewhere: str = "standard error",
    ) -> None:
        super().__init__()
        self._config, self._fallback, self._clock = config, fallback, clock
        self._elsewhere = elsewhere
        self._file: logging.FileHandler | None = None
        self._failed_at: float | None = None
        self._steady = Steady(clock)

    def emit(self, record: logging.LogRecord) -> None:
        if self._failed_at is not None and self._clock() < self._failed_at + _REOPEN:
            self._fall_back(record)
            return
        try:
            self._write(record)
        except (OSError, ValueError) as error:
            if self._steady.due("file"):
                message = f"the log file can't be written: {error}; messages go to {self._elsewhere}"
                self._fall_back(_own(logging.ERROR, message))
            self._failed_at = self._clock()
            self._close_file()
            self._fall_back(record)

    def close(self) -> None:
        self._close_file()
        self._fallback.close()
        super().close()

    def _write(self, record: logging.LogRecord) -> None:
        if self._file is not None and not _is_in_place(self._file):
            # Moved away by logrotate, or removed with its directory: go on in a new one.
            self._close_file()
        if self._file is None:
            _end_line(os.fspath(self._config.file or ""))
            self._file = _file(self._config)
        if self._failed_at is not None:
            self._failed_at = None
            if self._steady.ended("file") is not None:
                message = f"the log file can be written again; messages in between went to {self._elsewhere}"
                self._file.emit(_own(logging.WARNING, message))
        self._file.emit(record)

    def _fall_back(self, record: logging.LogRecord) -> None:
        if record.levelno >= self._fallback.level:
            self._fallback.handle(record)

    def _close_file(self) -> None:
        if self._file is not None:
            with suppress(OSError, ValueError):
                self._file.close()
        self._file = None


@dataclass(slots=True)
class Steady:
    """Says what lasts once, and then once a minute.

    A subject (the endpoint, a disk) has one state or several; each is counted by itself, so that
    changing to and fro says nothing more often. What has ended is news when it begins again, but what
    comes and goes all the time is said every `calm` seconds at most.
    """

    clock: Callable[[], float] = time.monotonic
    every: float = 60.0
    """Seconds between two times that the same is said."""
    calm: float = 10.0
    _said: dict[str, dict[str, float]] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)

    def due(self, subject: str, state: str = "") -> bool:
        """Whether this is to be said now; asking counts as saying it."""
        now = self.clock()
        since = self._since.setdefault(subject, now)
        said = self._said.setdefault(subject, {})
        if state in said and now - said[state] < (self.every if said[state] >= since else self.calm):
            return False
        said[state] = now
        return True

    def ended(self, subject: str) -> float | None:
        """Tells for how many seconds it lasted; None if there was nothing, or nothing was said of it."""
        since = self._since.pop(subject, None)
        if since is None or all(at < since for at in self._said[subject].values()):
            return None
        return self.clock() - since


class _Raising:
    """Lets what fails in a handler of logging come out, instead of being printed with a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (its name in logging)
        raise  # it is called in an except clause


class _PlainFile(_Raising, logging.FileHandler):
    pass


class _FileBySize(_Raising, logging.handlers.RotatingFileHandler):
    pass


class _FileByTime(_Raising, logging.handlers.TimedRotatingFileHandler):
    pass


def _formatter(config: "LoggingConfig") -> logging.Formatter:
    return JsonFormatter() if config.as_json else LineFormatter(config.format)


def _file(config: "LoggingConfig") -> logging.FileHandler:
    path, kept = os.fspath(config.file or ""), config.backup_count
    handler: logging.FileHandler
    if config.rotate == "TIME":
        handler = _FileByTime(
            path, config.when, config.interval, backupCount=kept, encoding="utf-8", delay=True
        )
    elif config.rotate == "SIZE" and config.maxbytes and kept:
        handler = _FileBySize(path, maxBytes=config.maxbytes, backupCount=kept, encoding="utf-8", delay=True)
    else:
        handler = _PlainFile(path, encoding="utf-8", delay=True)
    handler.setFormatter(_formatter(config))
    return handler


def _end_line(path: str) -> None:
    """Let nothing be added to a line that a full disk or a power cut has left unfinished."""
    # One that may be written but not read is left as it is.
    with suppress(FileNotFoundError, PermissionError), open(path, "rb+", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size  # 0 of what is no file
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            os.pwrite(file.fileno(), b"\n", size)


def _is_in_place(file: logging.FileHandler) -> bool:
    if file.stream is None:
        return True
    try:
        return os.path.samestat(os.stat(file.baseFilename), os.fstat(file.stream.fileno()))
    except FileNotFoundError:
        return False


def _sound(record: logging.LogRecord) -> logging.LogRecord:
    """The record; where its arguments don't fit its message, one that shows both."""
    try:
        record.getMessage()
    except (TypeError, ValueError, KeyError):
        record = copy.copy(record)
        record.msg, record.args = f"{record.msg} {record.args!r}", None
    return record


def _own(level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, level, __file__, 0, message, None, None)
