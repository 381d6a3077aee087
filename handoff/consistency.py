"""What keys of the handoff configuration must be to each other.

The checks look at the text that the file holds, so that they are told together with whatever is
wrong with single keys. A value that makes no sense in itself is passed over here.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import PurePosixPath

from common.config.document import Document, Key
from common.config.origin import Origin
from common.config.places import intrusions, overlap
from common.config.quantities import rate
from common.config.values import remote_path
from common.remote import split_template

RESERVED = ("batch", "command", "dest", "file")
"""Placeholders that the manager fills in."""
KNOWN = ("host", "staging", "buffer", "transfer", "notes")
"""Keys of ``endpoint`` that are always there to fill a placeholder."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_LEAST_RATE = 1000
"""Bytes a second for one worker; less can't be told to rsync."""

_NOBODY = "nobody is there to answer or to read"
_CONNECTIONS = "the manager keeps connections of its own"
_COMMANDS = "the manager decides what is run"
_FORWARDING = "the manager's connections forward nothing"
_OWN_KEY = "there is a key for it, "
_OWN_FILE = "it belongs into a file, which endpoint.ssh.config names"
_OWNED_OPTIONS = {
    "batchmode": _NOBODY,
    "requesttty": _NOBODY,
    "escapechar": _NOBODY,
    "loglevel": "the manager reads ssh's messages",
    "controlmaster": _CONNECTIONS,
    "controlpath": _CONNECTIONS,
    "controlpersist": _CONNECTIONS,
    "forkafterauthentication": _COMMANDS,
    "localcommand": _COMMANDS,
    "permitlocalcommand": _COMMANDS,
    "remotecommand": _COMMANDS,
    "sessiontype": _COMMANDS,
    "stdinnull": _COMMANDS,
    "clearallforwardings": _FORWARDING,
    "dynamicforward": _FORWARDING,
    "forwardagent": _FORWARDING,
    "forwardx11": _FORWARDING,
    "localforward": _FORWARDING,
    "remoteforward": _FORWARDING,
    "tunnel": _FORWARDING,
    "port": _OWN_KEY + "endpoint.ssh.port",
    "user": _OWN_KEY + "endpoint.user",
    "identityfile": _OWN_KEY + "endpoint.ssh.identity",
    "host": _OWN_FILE,
    "match": _OWN_FILE,
    "include": _OWN_FILE,
}


def problems(document: Document, origin: Origin) -> Iterator[tuple[Key, str]]:
    """Everything that several keys of the document have wrong together."""
    yield from intrusions(document, origin, ("handoff", "buffer"), [("handoff", "holding")])
    yield from _remote_places(document)
    yield from _commands(document)
    yield from _ssh_options(document)
    yield from _bandwidth(document)


def placeholders_in(document: Document) -> set[str]:
    """The names in braces in the commands, sound or not."""
    texts = [text for text in _section(document, "endpoint", "commands").values() if isinstance(text, str)]
    return {name for text in texts for name in _PLACEHOLDER.findall(text)}


def default_staging(endpoint: Mapping[str, object]) -> str | None:
    """Beside the buffer, when no staging directory is given; None where there is no need of it."""
    buffer = endpoint.get("buffer")
    if endpoint.get("staging") is not None or not isinstance(buffer, str) or not buffer.startswith("/"):
        return None
    return buffer.rstrip("/") + ".staging"


def _section(document: Document, *key: str) -> Mapping[str, object]:
    value = document.value(key)
    return value if isinstance(value, dict) else {}


def _remote_places(document: Document) -> Iterator[tuple[Key, str]]:
    endpoint = _section(document, "endpoint")
    staging, buffer = endpoint.get("staging"), endpoint.get("buffer")
    if not isinstance(staging, str) or not isinstance(buffer, str):
        return
    try:
        paths = PurePosixPath(remote_path(staging)), PurePosixPath(remote_path(buffer))
    except ValueError:
        return
    if message := overlap(*paths, "endpoint.buffer"):
        yield ("endpoint", "staging"), message


def _commands(document: Document) -> Iterator[tuple[Key, str]]:
    commands = _section(document, "endpoint", "commands")
    transfer, remote = commands.get("transfer"), commands.get("remote")
    if isinstance(transfer, str):
        key: Key = ("endpoint", "commands", "transfer")
        yield from ((key, message) for message in _transfer(transfer, document))
    if isinstance(remote, str):
        key = ("endpoint", "commands", "remote")
        yield from ((key, message) for message in _remote(remote, document))
        if transfer is None:
            yield key, "needs endpoint.commands.transfer beside it; rsync and scp connect by endpoint.ssh"


def _transfer(template: str, document: Document) -> Iterator[str]:
    try:
        words = _words(template)
    except ValueError as error:
        yield str(error)
        return
    used = {name for _, names in words for name in names}
    yield from _undefined(used, {"batch", "dest", "file"}, document)
    if not used & {"file", "batch"}:
        yield "must contain {file}, or {batch} for several files of one directory"
    if {"file", "batch"} <= used:
        yield "must contain either {file} or {batch}, not both"
    if "dest" not in used:
        yield "must contain {dest}"
    if any("batch" in names and word != b"{batch}" for word, names in words):
        yield "must have {batch} as a word of its own; it becomes one argument for each file"


def _remote(template: str, document: Document) -> Iterator[str]:
    try:
        words = _words(template)
    except ValueError as error:
        yield str(error)
        return
    used = {name for _, names in words for name in names}
    yield from _undefined(used, {"command"}, document)
    if "command" not in used:
        yield "must contain {command}"


def _words(template: str) -> list[tuple[bytes, set[str]]]:
    """The words of a command, each with the names of its placeholders.

    Raises
    ------
    ValueError
        A quotation is left open.
    """
    try:
        words = split_template(template)
    except ValueError as error:
        raise ValueError(f"can't be split into words: {str(error).lower()}") from error
    return [(word, set(_PLACEHOLDER.findall(os.fsdecode(word)))) for word in words]


def _undefined(used: Iterable[str], reserved: set[str], document: Document) -> Iterator[str]:
    """Placeholders that nothing fills."""
    endpoint = _section(document, "endpoint")
    scalars = {name for name, value in endpoint.items() if isinstance(value, str)}
    known = sorted((scalars | set(KNOWN) | reserved) - (set(RESERVED) - reserved))
    for name in sorted(set(used) - set(known)):
        if name in RESERVED:
            yield f"can't use {{{name}}}, which has no meaning here"
            continue
        near = get_close_matches(name, known, n=1, cutoff=0.7)
        yield f"uses {{{name}}}, but there is no endpoint.{name}" + (
            f"; did you mean {{{near[0]}}}?" if near else ""
        )


def _ssh_options(document: Document) -> Iterator[tuple[Key, str]]:
    seen: dict[str, str] = {}
    for name in _section(document, "endpoint", "ssh", "options"):
        key: Key = ("endpoint", "ssh", "options", name)
        lower = name.lower()
        if not re.fullmatch(r"[A-Za-z0-9]+", name):
            yield key, "must be the name of an ssh option, as in `man ssh_config`"
        elif lower in _OWNED_OPTIONS:
            yield key, f"can't be set here: {_OWNED_OPTIONS[lower]}"
        elif lower in seen:
            yield key, f"is given twice, as {seen[lower]} before; ssh does not mind capitals"
        seen[lower] = name


def _bandwidth(document: Document) -> Iterator[tuple[Key, str]]:
    general = _section(document, "general")
    try:
        workers = int(str(general.get("num_threads", 4)))
        limit = rate(general.get("bandwidth"))
    except ValueError:
        return
    if 0 < limit < _LEAST_RATE * workers:
        yield ("general", "bandwidth"), f"must be at least 1kB/s for each of the {workers} workers"
