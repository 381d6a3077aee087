"""The kinds of values that the keys of a configuration take; each says in plain words what it wants.

A problem that is found here is raised as a ValueError and told as ``key: message``, so a message starts
with "must".
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, ValidationInfo

from common.config.origin import Origin, local_path, plain_text
from common.config.quantities import duration, duration_text, rate, rate_text, size, size_text


def origin(info: ValidationInfo) -> Origin:
    """The origin that the models are validated with."""
    found = info.context
    return found if isinstance(found, Origin) else Origin(Path("config.yaml"), os.environ)


def remote_path(value: str) -> str:
    """A path at the endpoint site, where neither ``~`` nor a working directory can be relied upon."""
    if not plain_text(value).startswith("/"):
        raise ValueError(f"must be an absolute path at the endpoint, not {value!r}")
    if ".." in value.split("/"):
        raise ValueError(f"must not contain '..': {value!r}")
    path = "/" + posixpath.normpath(value).lstrip("/")
    if path == "/":
        raise ValueError("must not be the root directory")
    return path


def pattern(value: str) -> str:
    """A regular expression that can be compiled and does not match everything."""
    try:
        matches_all = re.search(value, "") is not None and re.search(value, "\x00/\n") is not None
    except (re.error, OverflowError) as error:
        raise ValueError(f"must be a regular expression; {value!r} is none: {error}") from error
    if matches_all:
        raise ValueError(f"must not match every path, as {value!r} does")
    return value


def _shown_size(count: int) -> str | int:
    """As a file has it: nothing is a number, for as text it would stand in quotes."""
    return size_text(count) if count else 0


def upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def empty_list(value: object) -> object:
    """A key of a list without a value is an empty list."""
    return () if value is None else value


def typed(value: object) -> object:
    """A tree of text for whoever does not say what it wants: what looks like a number, true or false is that.

    YAML's other words for booleans, its octal numbers and its sixties stay text.
    """
    match value:
        case None:
            return {}
        case dict():
            return {name: None if item is None else typed(item) for name, item in value.items()}
        case list():
            return [None if item is None else typed(item) for item in value]
        case "true" | "false":
            return value == "true"
        case str() if re.fullmatch(r"[+-]?(0|[1-9]\d*)", value):
            return int(value)
        case str() if re.fullmatch(r"[+-]?\d+\.\d*(e[+-]?\d+)?", value):
            return float(value)
    return value


def _local_path(value: object, info: ValidationInfo) -> Path:
    return local_path(value, origin(info).directory)


Text = Annotated[str, AfterValidator(plain_text)]
Duration = Annotated[float, BeforeValidator(duration), PlainSerializer(duration_text)]
Size = Annotated[int, BeforeValidator(size), PlainSerializer(_shown_size)]
Rate = Annotated[int, BeforeValidator(rate), PlainSerializer(rate_text)]
LocalPath = Annotated[Path, BeforeValidator(_local_path), PlainSerializer(str)]
RemotePath = Annotated[str, AfterValidator(remote_path)]
Patterns = Annotated[
    tuple[Annotated[str, AfterValidator(pattern)], ...], BeforeValidator(empty_list), PlainSerializer(list)
]
