"""Places that must not lie in a buffer, where what is in them would be found, or contain it."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath

from common.config.document import Document, Key, dotted
from common.config.origin import Origin, ledger_path, local_path

_LOG: Key = ("logging", "file")
_LEDGER: Key = ("database", "engine")


def intrusions(
    document: Document, origin: Origin, buffer: Key, others: Iterable[Key]
) -> Iterator[tuple[Key, str]]:
    """What lies in the buffer, contains it, or is it: other places, the log and the ledger."""
    base = origin.directory
    inner = real_path(document.value(buffer), base)
    if inner is None:
        return
    places = {key: real_path(document.value(key), base) for key in (*others, _LOG)}
    with suppress(ValueError):
        places[_LEDGER] = real_path(ledger_path(document.value(_LEDGER), origin), base)
    for key, path in places.items():
        if path is not None and (message := overlap(path, inner, dotted(buffer))):
            yield key, message


def overlap(path: PurePath, other: PurePath, name: str) -> str | None:
    """What is wrong with a path beside another one, which is called `name`."""
    if path == other:
        return f"must not be the same as {name}"
    if other in path.parents:
        return f"must not lie inside {name} ({other})"
    if path in other.parents:
        return f"must not contain {name} ({other})"
    return None


def real_path(value: object, base: Path) -> Path | None:
    """A local path, a relative one below `base`, without symbolic links; None where the value is no path."""
    try:
        return Path(os.path.realpath(local_path(value, base)))
    except ValueError:
        return None
