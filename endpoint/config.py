"""The endpoint manager's configuration: every key, its default, and what the keys must be together."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationInfo

from common.config.document import Document, Key
from common.config.loading import load as load_model
from common.config.loading import rendered
from common.config.origin import Origin, ledger_path, local_path, plain_text
from common.config.places import intrusions, real_path
from common.config.sections import (
    DatabaseConfig,
    GeneralConfig,
    LoggingConfig,
    RetryConfig,
    Section,
    notes_on,
)
from common.config.values import Duration, LocalPath, Patterns, Size, Text, empty_list, origin, typed

_OF_LOGS = {"source", "day", "past_days", "future_days", "delay", "extension"}
"""Keys of the finder that a scan has no use for."""

_STORAGE: Key = ("endpoint", "storage")
_CATALOGUE: Key = ("ingester", "catalogue")
_OF_CATALOGUE: Key = ("ingester", "config")
_OF_OODS = "# What an OODS configuration means; as one of endmgr's own, it would need a storage.\n"

Directories = Annotated[tuple[LocalPath, ...], BeforeValidator(empty_list)]


class EndpointSection(Section):
    buffer: LocalPath
    """Where files arrive, and where they are taken from."""
    storage: LocalPath | None = None
    """Where files go once they are verified, under the same relative path; only OODS has none."""
    staging: LocalPath | None = None
    """Where delivery notes are read and receipts are left; the handoff manager's `endpoint.staging`."""
    on_duplicate: Literal["delete", "keep"] = "delete"
    """What becomes of a file in the buffer whose path and content are stored already."""
    require_note: bool = False
    """Whether a file is stored only when a delivery note names it."""


def _day(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ValueError(f"must be a date such as 2026-11-25, not {value!r}") from None


def _shown_day(value: date | None) -> str | None:
    return value.isoformat() if value else None


class FinderConfig(Section):
    search: Literal["scan", "parse_rsync_logs"] = "scan"
    """`scan` the buffer, or `parse_rsync_logs` for files that another tool placed in storage."""
    exclude_list: Patterns = ()
    """Files that stay where they are: regular expressions, searched for in the path."""
    source: LocalPath | None = None
    """Where rsync logs are, in a directory for each day (`20261125`); when left out, `endpoint.buffer`."""
    day: Annotated[date | None, BeforeValidator(_day), PlainSerializer(_shown_day)] = Field(
        default=None, alias="date"
    )
    """The day whose logs are read, as `2026-11-25`; when left out, today."""
    past_days: int = Field(default=1, ge=0, le=36_500)
    """So many days before it, too."""
    future_days: int = Field(default=1, ge=0, le=36_500)
    """And so many after it, for other time zones."""
    delay: Duration = 60.0
    """How long a log must have been left unchanged; 0: it is read as it grows."""
    extension: Text | None = "done"
    """A log beside which a file of its name with this extension lies that is not older is passed over."""

    @property
    def reads_logs(self) -> bool:
        """Whether files lie in storage already when they are found."""
        return self.search == "parse_rsync_logs"


class ImportConfig(Section):
    """A class of one's own."""

    module: Text = Field(alias="import")
    """Its module."""
    name: Text
    """Its name there."""


def null_by_name(value: object) -> object:
    """What YAML takes for nothing is the catalogue of that name."""
    return "null" if value is None else value


def _catalogue(value: object) -> object:
    match null_by_name(value):
        case str() as name:
            return plain_text(name)
        case {"import": str(), "name": str(), **others} if not others:
            return ImportConfig.model_validate(value)
        case ImportConfig():
            return value
    raise ValueError("must be the name of a catalogue, or {import: module, name: Class}")


def _placed(config: dict[str, object], info: ValidationInfo) -> dict[str, object]:
    """The embedded catalogue's path begins where other paths do; of others' keys they alone know."""
    path = config.get("path")
    if info.data.get("catalogue") != "sqlite" or not isinstance(path, str):
        return config
    return {**config, "path": str(local_path(path, origin(info).directory))}


class IngesterConfig(Section):
    catalogue: Annotated[Text | ImportConfig, BeforeValidator(_catalogue)] = "sqlite"
    """`sqlite`, `butler`, `command`, `null`, an entry point, `module:Class`, or `{import: …, name: …}`."""
    config: Annotated[dict[str, object], BeforeValidator(typed), AfterValidator(_placed)] = Field(
        default_factory=dict, repr=False
    )
    """The catalogue's own configuration."""
    include_list: Patterns = ()
    """Files that are ingested: regular expressions, searched for in the path; empty: all."""
    exclude_list: Patterns = ()
    """Files that are stored and not ingested, likewise; it prevails."""
    batch_size: int = Field(default=20, ge=1)
    """How many files are ingested together at most."""
    num_workers: int = Field(default=1, ge=1, le=16)
    """How many catalogue processes there are."""
    timeout: Duration = Field(default=600.0, gt=0)
    """A catalogue that makes no progress for so long is killed."""


class CleanerConfig(Section):
    directories: Directories = ()
    """Below which old files and empty directories are removed."""
    files_older_than: Duration = Field(default=30 * 86_400.0, gt=0)
    """How long ago a file must have come here, or have been changed last."""
    directories_empty_for_more_than: Duration = Field(default=86_400.0, gt=0)
    """How long a directory must have been empty; so are those in the buffer."""
    scan_interval: Duration = Field(default=30.0, gt=0)
    """Between two rounds."""


class EndpointRetryConfig(RetryConfig):
    attempts: int = Field(default=3, ge=1)
    """Failures of its own after which a file waits for `retry`."""


class EndpointGeneralConfig(GeneralConfig):
    num_threads: int = Field(default=2, ge=1, le=64)
    """How many workers verify and store files at the same time."""
    chunk_size: int = Field(default=500, ge=1)
    """How many files they take at once at most."""
    batch_bytes: Size = Field(default=256_000_000, gt=0)
    """How many bytes they take at once at most; a larger file goes alone."""
    retry: EndpointRetryConfig = Field(default_factory=dict, validate_default=True)
    """How a file that failed is tried again."""


class EndpointConfig(Section):
    endpoint: EndpointSection
    """This site."""
    finder: FinderConfig = Field(default_factory=dict, validate_default=True)
    """How files are found."""
    ingester: IngesterConfig = Field(default_factory=dict, validate_default=True)
    """What they are ingested into."""
    cleaner: CleanerConfig = Field(default_factory=dict, validate_default=True)
    """What is removed when it is old."""
    database: DatabaseConfig = Field(default_factory=dict, validate_default=True)
    """The ledger."""
    logging: LoggingConfig = Field(default_factory=dict, validate_default=True)
    """What is told about the work, and where."""
    general: EndpointGeneralConfig = Field(default_factory=dict, validate_default=True)
    """How the work is done."""

    @property
    def ledger_path(self) -> Path:
        return self.database.path

    @property
    def logs(self) -> Path:
        """Where rsync logs are."""
        return self.finder.source or self.endpoint.buffer

    @property
    def catalogue(self) -> str | Mapping[str, str]:
        """How the catalogue is found."""
        found = self.ingester.catalogue
        return found if isinstance(found, str) else {"import": found.module, "name": found.name}

    @property
    def has_own_catalogue(self) -> bool:
        """Whether the catalogue is the embedded one, in its own place."""
        return self.ingester.catalogue == "sqlite" and "path" not in self.ingester.config

    @property
    def catalogue_config(self) -> Mapping[str, object]:
        """The catalogue's configuration; the embedded one lies beside the ledger unless it says where."""
        given = self.ingester.config
        if self.has_own_catalogue:
            return {**given, "path": str(self.ledger_path.with_suffix(".catalogue.db"))}
        return given

    def notes(self) -> tuple[str, ...]:
        """What is allowed and yet worth to be told."""
        told = [*notes_on(self.database, self.logging)]
        if not self.finder.reads_logs:
            given = {"date" if key == "day" else key for key in self.finder.model_fields_set & _OF_LOGS}
            told += [f"finder.{key}: is for parse_rsync_logs alone" for key in sorted(given)]
        if self.endpoint.require_note and self.endpoint.staging is None:
            told.append("endpoint.require_note: stores nothing without endpoint.staging, where the notes are")
        return tuple(told)


def load(path: Path, environment: Mapping[str, str] | None = None) -> EndpointConfig:
    """Read the configuration.

    Raises
    ------
    ConfigError
        Its message has a line for each problem: ``file:line: key: message``.
    """
    return load_model(EndpointConfig, path, check=_problems, environment=environment)


def effective(config: EndpointConfig) -> str:
    """The configuration with all defaults filled in, as YAML that loads as the same configuration.

    What is made of an OODS configuration is shown like that too, and says that it is none: its files stay
    in the buffer.
    """
    shown = rendered(config)
    return shown if config.endpoint.storage else f"{_OF_OODS}{shown}"


def endangered(document: Document, origin: Origin, directories: Key, base: Path) -> Iterator[tuple[Key, str]]:
    """Which of the cleaner's directories hold what the manager itself needs, and would lose once it is old.

    Relative ones begin at `base`.
    """
    kept = [*_kept(document, origin)]
    given = document.value(directories)
    for position, value in enumerate(given if isinstance(given, list) else ()):
        directory = real_path(value, base)
        for name, path in kept:
            if path == directory or directory in path.parents:
                yield (*directories, position), f"must not contain {name} ({path})"


def refused(document: Document) -> Iterator[tuple[Key, str]]:
    """What the catalogue does not want of its configuration, if it comes along with the manager.

    A third party's may take long to import: `check` and `start` ask it.
    """
    name, config = document.value(_CATALOGUE, "sqlite"), typed(document.value(_OF_CATALOGUE))
    name = null_by_name(name)
    if not isinstance(name, str) or not isinstance(config, dict) or (name == "sqlite" and not config):
        return
    if name == "sqlite" and isinstance(config.get("path", ""), str):
        # It lies beside the ledger, or its path is looked at as all paths are.
        config = {**config, "path": "somewhere"}
    from endpoint.catalogues.loading import BUILT_IN, find

    if name in BUILT_IN:
        try:
            find(name)(config)
        except ValueError as error:
            key, _, message = str(error).partition(": ")
            yield (*_OF_CATALOGUE, *key.split(".")), message


def _kept(document: Document, origin: Origin) -> Iterator[tuple[str, Path]]:
    yield "this configuration", Path(os.path.realpath(origin.file))
    with suppress(ValueError):
        ledger = ledger_path(document.value(("database", "engine")), origin)
        yield "the ledger", Path(os.path.realpath(ledger))
    for name, key in (
        ("the log", ("logging", "file")),
        ("the catalogue", ("ingester", "config", "path")),
    ):
        if path := real_path(document.value(key), origin.directory):
            yield name, path


def _problems(document: Document, origin: Origin) -> Iterator[tuple[Key, str]]:
    if isinstance(document.value(("endpoint",)), dict) and document.value(_STORAGE) is None:
        yield _STORAGE, "is required"
    yield from intrusions(document, origin, ("endpoint", "buffer"), [_STORAGE, ("endpoint", "staging")])
    yield from endangered(document, origin, ("cleaner", "directories"), origin.directory)
    yield from refused(document)
