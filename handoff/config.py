"""The handoff manager's configuration: every key, its default, and what the keys must be together."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from common.config.document import Document, Key
from common.config.loading import load as load_model
from common.config.loading import rendered, unknown
from common.config.origin import Origin
from common.config.sections import DatabaseConfig, GeneralConfig, LoggingConfig, Section, notes_on
from common.config.values import (
    Duration,
    LocalPath,
    Patterns,
    Rate,
    RemotePath,
    Size,
    Text,
)
from common.remote import Site
from handoff.consistency import RESERVED, default_staging, placeholders_in, problems


def _account(value: str) -> str:
    """A host or user name: ssh must not take it for an option, nor for several words."""
    if value.startswith("-") or re.search(r"[\s'\"`$;|&<>()]", value):
        raise ValueError(f"must be a plain name, not {value!r}")
    return value


def _host(value: str) -> str:
    if "@" in value:
        raise ValueError(f"must be the host alone, not {value!r}; the account goes to endpoint.user")
    return _account(value)


def _yes_or_no(value: str) -> str:
    """Booleans as ssh writes them."""
    return {"true": "yes", "false": "no"}.get(value.lower(), value)


class HandoffSection(Section):
    buffer: LocalPath
    """Where files land, and where they are taken from."""
    holding: LocalPath
    """Where files go once they are safely delivered."""


class SshConfig(Section):
    port: int | None = Field(default=None, ge=1, le=65535)
    """The endpoint's ssh port. When left out, ssh decides."""
    identity: LocalPath | None = None
    """The private key, without a passphrase; no other is offered. When left out, ssh decides."""
    config: LocalPath | None = None
    """The ssh configuration file to read instead of the account's and the system's."""
    options: dict[str, Annotated[Text, AfterValidator(_yes_or_no)]] = Field(default_factory=dict, repr=False)
    """More options, named as in `man ssh_config`; they prevail over `config`."""


class CommandsConfig(Section):
    transfer: Text | None = Field(default=None, repr=False)
    """Sends `{file}`, or several as `{batch}`, to `{dest}`; takes the place of `endpoint.transfer`."""
    remote: Text | None = Field(default=None, repr=False)
    """Runs `{command}` at the endpoint; takes the place of `endpoint.ssh`."""


class EndpointConfig(Section):
    """The endpoint site. Keys of one's own are allowed where a command of one's own uses them."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Text]

    host: Annotated[Text, AfterValidator(_host)]
    """Its name or address."""
    user: Annotated[Text, AfterValidator(_account)] | None = None
    """The account there. When left out, ssh decides."""
    staging: RemotePath = ""
    """Where a transfer may be incomplete; on the same filesystem as `buffer`."""
    buffer: RemotePath
    """Where files appear, whole, under the same relative path as here."""
    transfer: Literal["auto", "rsync", "scp"] = "auto"
    """`rsync`, `scp`, or `auto`: a tar stream through ssh where the endpoint has GNU tar, else rsync where
    both ends have it, else scp."""
    ssh: SshConfig = Field(default_factory=dict, validate_default=True)
    """How ssh connects."""
    notes: bool = True
    """Whether delivery notes are written into `staging`, for the endpoint manager."""
    commands: CommandsConfig = Field(default_factory=dict, validate_default=True)
    """Commands of your own, for any other tool."""

    @model_validator(mode="before")
    @classmethod
    def _staging_beside_buffer(cls, data: object) -> object:
        if isinstance(data, Mapping) and (staging := default_staging(data)):
            return {**data, "staging": staging}
        return data

    def site(self) -> Site:
        """How the endpoint is reached, as workers take it along."""
        return Site(
            host=self.host,
            user=self.user,
            port=self.ssh.port,
            identity=None if self.ssh.identity is None else str(self.ssh.identity),
            config=None if self.ssh.config is None else str(self.ssh.config),
            options=self.ssh.options,
            remote_template=self.commands.remote,
            parameters=self.parameters,
        )

    @property
    def parameters(self) -> dict[str, str]:
        """What the placeholders of the commands stand for."""
        known = {
            "host": self.host,
            "staging": self.staging,
            "buffer": self.buffer,
            "transfer": self.transfer,
            "notes": str(self.notes).lower(),
        }
        return self.__pydantic_extra__ | known | ({"user": self.user} if self.user else {})


class HandoffGeneralConfig(GeneralConfig):
    num_threads: int = Field(default=4, ge=1, le=64)
    """How many workers carry files at the same time."""
    chunk_size: int = Field(default=500, ge=1)
    """How many files a batch holds at most."""
    batch_bytes: Size = Field(default=256_000_000, gt=0)
    """How many bytes a batch holds at most; a larger file goes alone."""
    timeout: Duration | None = Field(default=None, gt=0)
    """How long a command may take; null: as long as it moves bytes."""
    stall_timeout: Duration | None = Field(default=120.0, gt=0)
    """A command that moves no bytes for so long is killed; null: never."""
    order: Literal["oldest", "newest"] = "oldest"
    """Which of the waiting files go first."""
    bandwidth: Rate | None = Field(default=None, gt=0)
    """What all workers together may send, such as `200MB/s`; null: no limit."""
    exclude_list: Patterns = (r"\.tmp$",)
    """Files that stay in the buffer: regular expressions, searched for in the path below it; empty: none."""
    expiration_time: Duration = Field(default=86_400.0, gt=0)
    """Empty directories leave the buffer when they are older than this."""


class HandoffConfig(Section):
    handoff: HandoffSection
    """This site."""
    endpoint: EndpointConfig
    """The site that files are carried to."""
    database: DatabaseConfig = Field(default_factory=dict, validate_default=True)
    """The ledger."""
    logging: LoggingConfig = Field(default_factory=dict, validate_default=True)
    """What is told about the work, and where."""
    general: HandoffGeneralConfig = Field(default_factory=dict, validate_default=True)
    """How the work is done."""

    @property
    def ledger_path(self) -> Path:
        return self.database.path

    def notes(self) -> tuple[str, ...]:
        """What is allowed and yet worth to be told."""
        told = [*notes_on(self.database, self.logging)]
        commands, given = self.endpoint.commands, self.endpoint.model_fields_set
        if commands.transfer and "transfer" in given:
            told.append("endpoint.transfer: is not used beside endpoint.commands.transfer")
        if commands.transfer and self.general.bandwidth:
            told.append("general.bandwidth: is not kept by endpoint.commands.transfer; limit it there")
        if commands.remote and "ssh" in given:
            told.append("endpoint.ssh: is not used beside endpoint.commands.remote")
        return tuple(told)


def load(path: Path, environment: Mapping[str, str] | None = None) -> HandoffConfig:
    """Read the configuration.

    Raises
    ------
    ConfigError
        Its message has a line for each problem: ``file:line: key: message``.
    """
    return load_model(HandoffConfig, path, check=_problems, environment=environment)


def effective(config: HandoffConfig) -> str:
    """The configuration with all defaults filled in, as YAML that loads as the same configuration."""
    return rendered(config)


def _problems(document: Document, origin: Origin) -> Iterator[tuple[Key, str]]:
    yield from problems(document, origin)
    endpoint = document.value(("endpoint",))
    used = placeholders_in(document)
    for name in endpoint if isinstance(endpoint, dict) else ():
        key: Key = ("endpoint", name)
        if name in RESERVED:
            yield key, "is reserved for the placeholder that the manager fills in itself"
        elif name not in EndpointConfig.model_fields and name not in used:
            yield key, unknown(HandoffConfig, key) + ("; no command uses it" if used else "")
