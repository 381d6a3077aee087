"""Where a configuration comes from, and where its ledger is, without the models.

A start that cron calls every minute asks no more than that when a manager runs already, and the
models take longer to import than all the rest.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.config.document import described, read

_ENGINE = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a configuration comes from: relative paths and defaults follow from it."""

    file: Path
    environment: Mapping[str, str]

    @property
    def directory(self) -> Path:
        return self.file.absolute().parent


def plain_text(value: str) -> str:
    """Text of one line, for it may end up in an argument or in a generated file.

    Raises
    ------
    ValueError
        It is empty, or holds a control character.
    """
    if not value.strip():
        raise ValueError("must not be empty")
    if not value.isprintable():
        raise ValueError(f"must not hold a line break or another control character: {value!r}")
    return value


def local_path(value: object, base: Path) -> Path:
    """A path on this machine: ``~`` is expanded, and a relative one starts at `base`.

    Raises
    ------
    ValueError
        It is no text of one line, names a user that is not known, or is the root directory.
    """
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise ValueError(f"must be a path, not {described(value)}")
    expanded = os.path.expanduser(plain_text(value))
    if expanded.startswith("~"):
        raise ValueError(f"must be a path; there is no user {expanded.split('/')[0].removeprefix('~')!r}")
    path = base / expanded
    if path == Path("/"):
        raise ValueError("must not be the root directory")
    return path


def ledger_path(engine: object, source: Origin) -> Path:
    """The file that ``database.engine`` names; None: the default, which bears the configuration's name.

    Raises
    ------
    ValueError
        It names none.
    """
    if engine is None:
        state = source.environment.get("XDG_STATE_HOME", "")
        # The standard says that a relative one is to be ignored.
        home = state if state.startswith("/") else os.path.expanduser("~/.local/state")
        if not home.startswith("/"):
            raise ValueError("is required: this user has no home directory where the ledger could be")
        return Path(home, "dbb", f"{source.file.stem}.db")
    found = _ENGINE.fullmatch(engine) if isinstance(engine, str) else None
    if found is None or found[1] == ":memory:" or found[1].startswith("file:"):
        forms = "sqlite:////absolute/path or sqlite:///relative/path"
        raise ValueError(f"must be {forms}, not {described(engine)}")
    return local_path(found[1], source.directory)


def ledger_of(path: Path, environment: Mapping[str, str] | None = None) -> Path:
    """The ledger of a configuration, whatever else may be wrong in that.

    Raises
    ------
    ConfigError
        The file can't be read.
    ValueError
        It names none.
    """
    environment = os.environ if environment is None else environment
    document = read(path, environment)
    return ledger_path(document.value(("database", "engine")), Origin(path, environment))
