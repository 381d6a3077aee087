"""The contract of a catalogue: what the manager asks of one, ours or a third party's.

A catalogue is a class that is made from its configuration, a mapping, and does nothing heavy then. It
lives in a process of its own, the only one in which it is opened. What it prints goes nowhere that
matters; it may hang, crash or leave files without an answer, and costs only the file at fault.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from common.files import Checksum


@dataclass(frozen=True, slots=True)
class Request:
    """A file to ingest. It is complete, verified, and stays where it is unless the catalogue takes it."""

    id: int
    """By which its result is told."""
    path: bytes
    """Absolute."""
    name: bytes
    """Relative to the storage (or, where there is none, to the buffer)."""
    size: int
    """In bytes."""
    checksum: Checksum


class Verdict(StrEnum):
    """What became of a request."""

    INGESTED = "ingested"
    """It is in the catalogue: committed, and visible to whoever queries it."""
    ALREADY = "already there"
    """The catalogue had the same file before, under the same name. A success."""
    CONFLICT = "conflict"
    """The catalogue has something else in its place, and keeps it."""
    INVALID = "invalid"
    """The file can never be ingested as it is (no FITS header, say); it is not tried again by itself."""
    IGNORED = "ignored"
    """The catalogue does not want files like this one."""
    AGAIN = "try again"
    """Nothing is wrong with the file; the catalogue can't take it now (it is locked, or its disk is full)."""
    FAILED = "failed"
    """It did not work; another attempt may."""
    TIMED_OUT = "timed out"
    """From the host alone: no progress within the time limit."""
    CRASHED = "crashed"
    """From the host alone: the catalogue's process died over this file."""
    NO_ANSWER = "no answer"
    """From the host alone: the catalogue came to its end without a word on this file."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one request."""

    id: int
    verdict: Verdict
    reason: str = ""
    """In a sentence, for whoever wonders; an error with its cause."""


class Catalogue(Protocol):
    """What a catalogue can do. `CatalogueError` is the one exception that the host expects of it."""

    def open(self) -> None:
        """Connect, and create what is not there yet. Called once, in the process that ingests.

        Raises
        ------
        CatalogueError
            It can't be used now; the host asks again later.
        """

    def ingest(self, requests: Sequence[Request]) -> Iterable[Result] | Iterator[Result]:
        """Ingest files: one result for each request, in any order, none before its commit.

        Each result counts as progress. To ingest the same file once more must be harmless: it is done
        after a crash.

        Raises
        ------
        CatalogueError
            The catalogue as a whole fails: what has no result yet goes back without blame.
        """

    def version(self) -> str:
        """What ingests, with its version, for `check`. May be called before `open`, and creates nothing.

        Raises
        ------
        CatalogueError
            It is plain already that it can't be used.
        """

    def close(self) -> None:
        """Give back what `open` took."""


class CatalogueClass(Protocol):
    """How a catalogue is made.

    Raises
    ------
    ValueError
        Of the call: what is wrong with the configuration, as ``key: message``.
    """

    def __call__(self, config: Mapping[str, object]) -> Catalogue: ...


class CatalogueError(Exception):
    """The catalogue as a whole can't be used.

    Parameters
    ----------
    message
        What happened to what.
    hint
        What to do.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
