"""The sections that the configurations of both managers share."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from common.config.changes import changes
from common.config.origin import ledger_path
from common.config.values import Duration, LocalPath, Size, origin, upper
from common.retry import Backoff

_LEVELS = {"WARN": "WARNING", "FATAL": "CRITICAL"}


class Section(BaseModel):
    """A mapping with known keys; every scalar arrives as text, and the key decides what it means."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, data: object) -> object:
        """A section without a value has all its defaults."""
        return {} if data is None else data

    def changes(self, after: Self) -> Iterator[str]:
        """What differs in another of its kind, a line for each key, without what may be a password."""
        return changes(self, after)


def _engine(value: object, info: ValidationInfo) -> str:
    return f"sqlite:///{ledger_path(value, origin(info))}"


class DatabaseConfig(Section):
    engine: Annotated[str, BeforeValidator(_engine)] = Field(default=None, validate_default=True)
    """Where the ledger is, as `sqlite:////absolute/path` or `sqlite:///relative/path`."""
    echo: object = Field(default=None, exclude=True)
    """Ignored; the original manager's database library knew it."""
    pool_type: object = Field(default=None, exclude=True)
    """Ignored, likewise."""
    pool_class: object = Field(default=None, exclude=True)
    """Ignored, likewise."""

    @property
    def path(self) -> Path:
        """The ledger's file."""
        return Path(self.engine.removeprefix("sqlite:///"))


def _level(value: object) -> object:
    name = upper(value)
    return _LEVELS.get(name, name) if isinstance(name, str) else name


def _format(value: str) -> str:
    record = logging.LogRecord("name", logging.INFO, "path", 1, "message", None, None)
    try:
        line = logging.Formatter(value, validate=False).format(record)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"must be a format of Python's logging; {value!r} is none: {error}") from error
    if len(line.splitlines()) > 1:
        raise ValueError("must give one line")
    return value


class LoggingConfig(Section):
    file: LocalPath | None = None
    """Where messages go; standard error when there is none."""
    format: Annotated[str, AfterValidator(_format)] = "%(asctime)s:%(name)s:%(levelname)s:%(message)s"
    """A line's form, in the words of Python's logging."""
    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_level)] = (
        "INFO"
    )
    """The least important messages that are kept: DEBUG, INFO, WARNING, ERROR or CRITICAL."""
    rotate: Annotated[Literal["TIME", "SIZE"] | None, BeforeValidator(upper)] = None
    """Begin a new file by TIME or by SIZE."""
    when: Annotated[
        Literal["S", "M", "H", "D", "W0", "W1", "W2", "W3", "W4", "W5", "W6", "MIDNIGHT"],
        BeforeValidator(upper),
    ] = "H"
    """With TIME, the unit of `interval`: S, M, H, D, W0 (Monday) to W6, or MIDNIGHT."""
    interval: int = Field(default=1, ge=1, le=10_000)
    """With TIME, how many units a file lasts."""
    maxbytes: Size = 0
    """With SIZE, how large a file grows; 0: without limit."""
    backup_count: int = Field(default=0, ge=0)
    """How many old files are kept; 0: with TIME all, with SIZE the file is never begun anew."""
    as_json: bool = Field(default=False, alias="json")
    """One JSON object a line instead of `format`."""


def notes_on(database: DatabaseConfig, logging: LoggingConfig) -> tuple[str, ...]:
    """What is allowed in them and yet worth to be told."""
    told = [
        f"database.{name}: is ignored; the ledger has no such setting"
        for name in ("echo", "pool_type", "pool_class")
        if name in database.model_fields_set
    ]
    if "%(message)s" not in logging.format and not logging.as_json:
        told.append("logging.format: shows no %(message)s")
    if logging.rotate == "SIZE" and not (logging.maxbytes and logging.backup_count):
        told.append("logging.rotate: SIZE begins a new file only with maxbytes and backup_count above 0")
    return tuple(told)


class RetryConfig(Section):
    attempts: int = Field(default=10, ge=1)
    """Failures of its own after which a file waits for `retry`."""
    first: Duration = Field(default=5.0, gt=0)
    """The wait before the second attempt."""
    factor: float = Field(default=2.0, ge=1, allow_inf_nan=False)
    """How much longer each wait is than the one before."""
    most: Duration = Field(default=600.0, gt=0)
    """The longest wait."""

    def backoff(self) -> Backoff:
        return Backoff(self.attempts, self.first, self.factor, self.most)


class GeneralConfig(Section):
    settle: Duration = 1.0
    """How long a file must have been unchanged; 0: closed, as far as can be known, is enough."""
    pause: Duration = Field(default=1.0, gt=0, le=86_400)
    """Between two scans; file events make them earlier."""
    retry: RetryConfig = Field(default_factory=dict, validate_default=True)
    """How a file that failed is tried again."""
    min_free: Size = 10**9
    """What would write to a disk with less free space than this waits, and says so; 0: never."""
