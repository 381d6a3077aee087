"""The shell scripts beside this module: what they are told, how they are run, how their answer reads."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import pairwise
from typing import Protocol

from common.errors import Failure, RemoteError, Scope
from common.exchange import Receipts, is_plain_name, read_receipts
from common.remote import Symptom, command_failed, endpoint_failure, quote, recognise
from common.room import Room
from common.wording import text as printable

_SYMPTOMS = (
    Symptom(
        r"cross-device link",
        "endpoint staging and buffer apart",
        "endpoint.staging and endpoint.buffer must lie in one filesystem, and in one mount of it",
    ),
    Symptom(
        r"No such file or directory|Not a directory|File exists",
        "endpoint directory missing",
        "is its filesystem mounted there, and does nothing else have its name?",
    ),
)
_OF_THE_WHOLE = re.compile(
    rb"No space left|quota exceeded|Read-only file system|Input/output error|cross-device link"
)
"""What one file meets, all others meet as well."""
_RECEIPTS = 200
_RECEIPT_BYTES = 1 << 20
"""So many receipts, and so many bytes of them, come with one answer."""
_TELLING = 300
"""So many characters of a message are kept, from its end."""


class Asked(Protocol):
    """The endpoint as `common.remote.Remote` reaches it."""

    def run_script(
        self,
        script: str,
        data: bytes = b"",
        *,
        timeout: float | None = None,
        stall_timeout: float | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a visit may take, and who is told that it gets on."""

    timeout: float | None = None
    """Seconds."""
    stall_timeout: float | None = None
    """Seconds without a sign of life; scripts give one every 5 s."""
    on_progress: Callable[[int], None] | None = None


PATIENT = Patience()
"""Without limits."""


class Definitions:
    """What a script is about, as shell text: variables, and lists as functions."""

    def __init__(self, **variables: bytes | str | int | bool) -> None:
        self._lines: list[bytes] = []
        for name, value in variables.items():
            if isinstance(value, bool):
                value = "yes" if value else "no"
            word = value if isinstance(value, bytes) else str(value).encode()
            self._lines.append(name.encode() + b"=" + quote(word))

    def add_list(self, name: str, items: Iterable[bytes], *, each: int | None = None) -> None:
        """A function that calls the command it is given with all items, or with so many at a time."""
        words = [quote(item) for item in items]
        step = each or len(words) or 1
        calls = [b'"$@" ' + b" ".join(words[at : at + step]) for at in range(0, len(words), step)]
        # Without items the command is called all the same, unless it wants its items in portions.
        body = b"; ".join(calls) or (b":" if each else b'"$@"')
        self._lines.append(name.encode() + b"() { " + body + b"; }")

    def add_receipts(self, recorded: Sequence[bytes], passing: Sequence[bytes] = ()) -> None:
        """Which receipts are to be removed, which to be passed over, and how many are wanted."""
        if not all(is_plain_name(name) for name in (*recorded, *passing)):
            raise ValueError(f"not names of receipts: {(*recorded, *passing)!r}")
        limits = Definitions(
            receipts_most=_RECEIPTS,
            receipts_bytes=_RECEIPT_BYTES,
            recording=bool(recorded),
            passing=b" ".join(passing),
        )
        self._lines += limits._lines
        self.add_list("recorded", recorded)

    def __add__(self, other: "Definitions") -> "Definitions":
        both = Definitions()
        both._lines = self._lines + other._lines
        return both

    def __bytes__(self) -> bytes:
        return b"\n".join([*self._lines, b""])


@dataclass(frozen=True, slots=True)
class Answer:
    """What a script said: records of a word and a value, in their order, and what came behind them."""

    records: tuple[tuple[str, bytes], ...]
    rest: bytes

    @classmethod
    def read(cls, output: bytes) -> "Answer":
        """Raises RemoteError if it does not have its end, or tells a failure of the whole visit."""
        records: list[tuple[str, bytes]] = []
        at = 0
        while (end := output.find(b"\0", at)) >= 0:
            word, _, value = output[at:end].partition(b" ")
            at = end + 1
            if word == b"end":
                answer = cls(tuple(records), output[at:])
                answer._raise_failure()
                return answer
            records.append((word.decode(errors="replace"), value))
        reason = f"its answer ends with {output[-_TELLING:]!r}"
        hint = "it is tried again; what ends programs there, or keeps back what they print?"
        raise RemoteError(Failure(Scope.ENDPOINT, "endpoint script cut short", reason, hint))

    def all(self, word: str) -> list[bytes]:
        return [value for name, value in self.records if name == word]

    def one(self, word: str) -> bytes:
        """The value of the last such record; empty if there is none."""
        return next((value for name, value in reversed(self.records) if name == word), b"")

    def __contains__(self, word: str) -> bool:
        return any(name == word for name, _ in self.records)

    def room(self, directory: str) -> Room | None:
        """The room in a directory, by the name that the script calls it."""
        for value in self.all("space"):
            name, *numbers = value.split(b" ")
            if name == directory.encode() and all(number.isdigit() for number in numbers):
                size, total, free, inodes, free_inodes = (int(number) for number in numbers)
                return Room(free * size, total * size, free_inodes if inodes else None, inodes or None)
        return None

    def durations(self) -> dict[str, float]:
        """Seconds from mark to mark, by the later one's name; nothing where time can't be told."""
        marks = [value.split(b" ") for value in self.all("mark")]
        return {
            name.decode(): float(later) - float(earlier) for (_, earlier), (name, later) in pairwise(marks)
        }

    def receipts(self) -> Receipts:
        """The receipts whose contents came with the answer."""
        contents = {}
        at = 0
        for value in self.all("receipt"):
            size, _, name = value.partition(b" ")
            contents[name] = self.rest[at : at + int(size)]
            at += int(size)
        # One that changed while it was read has moved the others about: next time, then.
        return read_receipts(contents) if at == len(self.rest) else Receipts()

    def _raise_failure(self) -> None:
        if "fail" in self:
            where, _, text = self.one("fail").partition(b" ")
            what = _PLACES.get(where, "")
            raise RemoteError(whole_failure(text, what))


_PLACES = {
    b"buffer": "the endpoint's buffer can't be entered",
    b"note": "the delivery note can't be written into the endpoint's staging",
    b"flush": "the endpoint could not make it durable",
    b"staging": "the endpoint's staging can't be written",
    b"input": "the endpoint's script could not read all of its input",
}


def run_script(
    remote: Asked, name: str, definitions: Definitions, text: bytes = b"", *, patience: Patience
) -> Answer:
    """Run one of the scripts and read its answer; its input is `text`, and a line that tells its end.

    Raises
    ------
    RemoteError
        The endpoint could not be asked, or something is wrong with the whole visit.
    """
    output = remote.run_script(
        script(name, definitions),
        text + b"end\n",
        timeout=patience.timeout,
        stall_timeout=patience.stall_timeout,
        on_progress=patience.on_progress,
    )
    return Answer.read(output)


def script(name: str, definitions: Definitions) -> str:
    """One of the scripts, with what it is about."""
    package = files("handoff")
    beginning, work = (package.joinpath(part).read_text() for part in ("visit.sh", name))
    return beginning + os.fsdecode(bytes(definitions)) + work


def whole_failure(message: bytes, what: str) -> Failure:
    """The failure of the whole endpoint that a program's message tells."""
    told = _told(message)
    known = endpoint_failure([told]) or recognise(_SYMPTOMS, Scope.ENDPOINT, [told])
    failure = known or command_failed(told)
    return replace(failure, reason=f"{what}: {told}" if told else what)


def file_failure(message: bytes, what: str) -> Failure:
    """The failure that a program's message about one file tells: the endpoint's, or that file's alone."""
    if _OF_THE_WHOLE.search(message):
        return whole_failure(message, what)
    told = _told(message)
    return Failure(Scope.FILE, "not placed", f"{what}: {told}" if told else what, "look at it there")


def is_unsupported(message: bytes) -> bool:
    """Whether a program says that the filesystem can't do it at all."""
    return re.search(rb"not (permitted|supported|implemented)", message) is not None


def _told(message: bytes) -> str:
    lines = message.decode(errors="surrogateescape").strip().splitlines()
    return printable(lines[-1][-_TELLING:].strip()) if lines else ""


def absolute(directory: bytes) -> bytes:
    """The directory, if it is one that can be named to a script; raises ValueError if not."""
    if not directory.startswith(b"/") or b"\0" in directory:
        raise ValueError(f"not an absolute path: {directory!r}")
    return directory


def plain_path(path: bytes) -> bytes:
    """The path, if it is relative and leads nowhere but down; raises ValueError if not."""
    if b"\0" in path or not {b"", b".", b".."}.isdisjoint(path.split(b"/")):
        raise ValueError(f"not a plain relative path: {path!r}")
    return path


def batch_name(name: bytes) -> bytes:
    """The name, if it is one that a batch of ours has; raises ValueError if not."""
    if not re.fullmatch(rb"batch-[0-9a-f]{16}-[A-Za-z0-9]+", name):
        raise ValueError(f"not the name of a batch: {name!r}")
    return name


def parents(path: bytes) -> Iterator[bytes]:
    """The directories that a path goes through, outer ones first."""
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)


def ancestors(paths: Iterable[bytes]) -> tuple[bytes, ...]:
    """All directories that the paths go through, outer ones before inner ones."""
    every = {parent for path in paths for parent in parents(path)}
    return tuple(sorted(every, key=lambda directory: (directory.count(b"/"), directory)))
