"""Configurations of the OODS (lsst-dm/ctrl_oods 1.0.0-rc1), and what they mean here.

Each key may stand where the OODS read it and where Rubin's quickstart puts it: `repoDirectory` below
`butler` or below its `class`, `batchSize` and `scanInterval` below `ingester` or below `butler`.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from common.config.document import Document, Key, dotted, read
from common.config.loading import load as load_model
from common.config.origin import Origin, local_path
from common.config.places import overlap, real_path
from common.config.sections import DatabaseConfig, LoggingConfig, Section
from common.config.values import Duration, Text, empty_list, typed
from endpoint.config import (
    CleanerConfig,
    EndpointConfig,
    EndpointGeneralConfig,
    EndpointSection,
    ImportConfig,
    IngesterConfig,
    endangered,
    null_by_name,
    refused,
)
from endpoint.config import load as load_own

_MARKS: tuple[Key, ...] = (
    ("defaultInterval",),
    ("cacheCleaner",),
    ("ingester", "directories"),
    ("ingester", "butler"),
    ("ingester", "batchSize"),
    ("ingester", "scanInterval"),
)
"""Keys by which a configuration of the OODS is known."""
_GEN2 = "Gen2ButlerIngester"
_LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warn", "ERROR": "error", "CRITICAL": "fatal"}
"""By level of logging: what `ingestImages.py` calls it."""
_ALL = 100_000
"""Files that are ingested together where all are to be: a command takes as many of them as it can."""
_SHORTEST, _LONGEST = 0.1, 86_400.0
"""Seconds between two scans."""
_BUFFER: Key = ("ingester", "directories", 0)
_REPOSITORIES: tuple[Key, ...] = (
    ("ingester", "butler", "repoDirectory"),
    ("ingester", "butler", "class", "repoDirectory"),
)
_EITHER: tuple[tuple[Key, Key], ...] = (
    _REPOSITORIES,  # type: ignore[assignment]
    (("ingester", "batchSize"), ("ingester", "butler", "batchSize")),
    (("ingester", "scanInterval"), ("ingester", "butler", "scanInterval")),
)
"""Places of the same key, of which one is taken."""


def _working_path(value: object) -> Path:
    """As for the OODS, a relative path begins where the command is given."""
    return local_path(value, Path.cwd())


WorkingPath = Annotated[Path, BeforeValidator(_working_path)]


class Interval(Section):
    """A time, in units that are added up."""

    days: float = Field(default=0, ge=0, le=36_500)
    hours: float = Field(default=0, ge=0, le=876_000)
    minutes: float = Field(default=0, ge=0, le=52_560_000)
    seconds: float = Field(default=0, ge=0, le=3_153_600_000)

    @property
    def total(self) -> float:
        """In seconds."""
        return ((self.days * 24 + self.hours) * 60 + self.minutes) * 60 + self.seconds


def _some(value: Interval) -> Interval:
    if value.total <= 0:
        raise ValueError("must be more than nothing, or all would be removed at once")
    return value


def _batch_size(value: int) -> int:
    if value < 1 and value != -1:
        raise ValueError(f"must be at least 1, or -1 for all at once, not {value}")
    return value


def _one(value: tuple[Path, ...]) -> tuple[Path, ...]:
    if len(value) != 1:
        problem = "more than one is" if value else "none is"
        raise ValueError(f"must have one directory; {problem} given (start a manager for each)")
    return value


Age = Annotated[Interval, AfterValidator(_some)]
BatchSize = Annotated[int, AfterValidator(_batch_size)]
WorkingPaths = Annotated[tuple[WorkingPath, ...], BeforeValidator(empty_list)]


class OodsClass(Section):
    module: Text = Field(alias="import")
    name: Text
    repository: WorkingPath | None = Field(default=None, alias="repoDirectory")


class OodsButler(Section):
    which: OodsClass = Field(alias="class")
    repository: WorkingPath | None = Field(default=None, alias="repoDirectory")
    batch_size: BatchSize | None = Field(default=None, alias="batchSize")
    scan_interval: Interval | None = Field(default=None, alias="scanInterval")


class OodsIngester(Section):
    directories: Annotated[WorkingPaths, AfterValidator(_one)]
    butler: OodsButler | None = Field(default=None, validate_default=True)
    batch_size: BatchSize | None = Field(default=None, alias="batchSize")
    scan_interval: Interval | None = Field(default=None, alias="scanInterval")
    catalogue: Annotated[Text | None, BeforeValidator(null_by_name)] = None
    """One of ours instead of `butler`; the files stay in the buffer then."""
    config: Annotated[dict[str, object], BeforeValidator(typed)] = Field(default_factory=dict)
    """Its configuration."""
    staging: WorkingPath | None = None
    """Where delivery notes are read and receipts are left, as `endpoint.staging` of ours."""
    timeout: Duration = Field(default=3600.0, gt=0)
    """A program that ingests without coming to an end for so long is killed."""


class OodsCleaner(Section):
    directories: WorkingPaths
    scan_interval: Interval = Field(default_factory=lambda: Interval(seconds=30), alias="scanInterval")
    files_older_than: Age = Field(alias="filesOlderThan")
    directories_empty_for: Age = Field(alias="directoriesEmptyForMoreThan")


class OodsConfig(Section):
    default_interval: Interval | None = Field(default=None, alias="defaultInterval")
    """Of no meaning but for what is merged from it."""
    ingester: OodsIngester
    cleaner: OodsCleaner | None = Field(default=None, alias="cacheCleaner")
    database: DatabaseConfig = Field(default_factory=dict, validate_default=True)
    logging: LoggingConfig = Field(default_factory=dict, validate_default=True)
    general: EndpointGeneralConfig = Field(default_factory=dict, validate_default=True)


def load(
    path: Path, environment: Mapping[str, str] | None = None, *, level: str | None = None
) -> EndpointConfig:
    """Read a configuration of either kind.

    Parameters
    ----------
    level
        A level of logging that prevails over the configuration's.

    Raises
    ------
    ConfigError
        Its message has a line for each problem: ``file:line: key: message``.
    """
    document = read(path, os.environ if environment is None else environment)
    if is_oods(document):
        oods = load_model(OodsConfig, path, check=_problems, environment=environment)
        return translated(oods.model_copy(update={"logging": _at(oods.logging, level)}))
    own = load_own(path, environment)
    return own.model_copy(update={"logging": _at(own.logging, level)})


def is_oods(document: Document) -> bool:
    """Whether this is a configuration of the OODS: one of ours has a section `endpoint`."""
    return "endpoint" not in document.data and any(key in document.lines for key in _MARKS)


def translated(oods: OodsConfig) -> EndpointConfig:
    """What it means for the manager: files stay in the buffer until the catalogue takes them."""
    [buffer] = oods.ingester.directories
    general, interval = oods.general, _scan_interval(oods.ingester)
    if interval is not None and "pause" not in general.model_fields_set:
        pause = min(max(interval.total, _SHORTEST), _LONGEST)
        general = general.model_copy(update={"pause": pause})
    return EndpointConfig(
        endpoint=EndpointSection(buffer=buffer, staging=oods.ingester.staging),
        ingester=_ingester(oods.ingester, _LEVELS[oods.logging.level]),
        cleaner=_cleaner(oods.cleaner),
        database=oods.database,
        logging=oods.logging,
        general=general,
    )


def _at(logging: LoggingConfig, level: str | None) -> LoggingConfig:
    return logging if level is None else logging.model_copy(update={"level": level})


def _scan_interval(ingester: OodsIngester) -> Interval | None:
    return ingester.scan_interval or (ingester.butler.scan_interval if ingester.butler else None)


def _ingester(ingester: OodsIngester, level: str) -> IngesterConfig:
    butler = ingester.butler
    batch_size = ingester.batch_size or (butler.batch_size if butler else None) or 20
    config: dict[str, object] = dict(ingester.config)
    catalogue: str | ImportConfig = ingester.catalogue or "sqlite"
    if butler is not None:
        repository = butler.repository or butler.which.repository
        if butler.which.name == _GEN2:
            catalogue = "command"
            config = {"run": _ingest_images(repository, level), "is_taken": True}
        else:
            catalogue = ImportConfig(**{"import": butler.which.module, "name": butler.which.name})
            config = {} if repository is None else {"repoDirectory": str(repository)}
    return IngesterConfig(
        catalogue=catalogue,
        config=config,
        batch_size=_ALL if batch_size == -1 else batch_size,
        timeout=ingester.timeout,
    )


def _ingest_images(repository: Path | None, level: str) -> list[object]:
    """The command that the OODS ran."""
    options = ["--ignore-ingested", "--mode", "move", f"--loglevel={level}"]
    return ["ingestImages.py", str(repository), *options, "{files}"]


def _cleaner(cleaner: OodsCleaner | None) -> CleanerConfig:
    if cleaner is None:
        return CleanerConfig()
    return CleanerConfig(
        directories=cleaner.directories,
        files_older_than=cleaner.files_older_than.total,
        directories_empty_for_more_than=cleaner.directories_empty_for.total,
        scan_interval=max(cleaner.scan_interval.total, _SHORTEST),
    )


def _problems(document: Document, origin: Origin) -> Iterator[tuple[Key, str]]:
    yield from _wanted(document)
    for first, second in _EITHER:
        if first in document.lines and second in document.lines:
            yield second, f"is given in {dotted(first)} too; keep one of them"
    base = Path.cwd()
    buffer = real_path(document.value(_BUFFER), base)
    kept = [
        *((key, real_path(document.value(key), base)) for key in (*_REPOSITORIES, ("ingester", "staging"))),
        (("logging", "file"), real_path(document.value(("logging", "file")), origin.directory)),
    ]
    for key, path in kept:
        if path and buffer and (path == buffer or buffer in path.parents):
            yield key, overlap(path, buffer, dotted(_BUFFER)) or ""
    yield from endangered(document, origin, ("cacheCleaner", "directories"), base)
    if ("ingester", "catalogue") in document.lines:
        yield from refused(document)


def _wanted(document: Document) -> Iterator[tuple[Key, str]]:
    """What a butler needs, or what stands in its place."""
    ingester = document.value(("ingester",))
    if not isinstance(ingester, dict):
        return
    if "catalogue" not in ingester and "butler" not in ingester:
        yield ("ingester", "butler"), "is required (or, in its place, `catalogue: sqlite`)"
    elif "catalogue" in ingester and "butler" in ingester:
        yield ("ingester", "catalogue"), "goes in the place of ingester.butler; keep one of them"
    is_gen2 = document.value(("ingester", "butler", "class", "name")) == _GEN2
    if is_gen2 and not any(document.value(key) for key in _REPOSITORIES):
        yield _REPOSITORIES[0], "is required"
