"""Every error an operator can meet: what happened to what, what to do, and the exit code."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class DbbError(Exception):
    """An error with a hint, rendered without a traceback unless ``--debug`` is given."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(DbbError):
    """The configuration can't be used."""

    exit_code: ClassVar[int] = 10


class LedgerError(DbbError):
    """The ledger can't be used: newer schema, corrupt, not writable, another kind of manager's."""

    exit_code: ClassVar[int] = 11


class ProcessError(DbbError):
    """A program could not be started."""


class RemoteError(DbbError):
    """The endpoint site could not be asked; `failure` says whose fault it is."""

    def __init__(self, failure: "Failure") -> None:
        super().__init__(failure.reason, failure.hint)
        self.failure = failure


class Scope(StrEnum):
    """Who is to blame for a failure, which decides what waits for its cure."""

    FILE = "file"
    """This file alone: it backs off, everything else goes on."""
    HANDOFF = "handoff"
    """The handoff site (a full or read-only disk, say): what needs it waits."""
    CONNECTION = "connection"
    """The road between the sites: the circuit breaker opens; no file loses an attempt."""
    ENDPOINT = "endpoint"
    """The endpoint site (full, not writable): the circuit breaker opens as well."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a piece of work did not succeed.

    ``cause`` is the same for all failures of one kind (no path, no number in it), so that they can
    be counted together; ``reason`` tells this one in full; ``hint`` says what to do.
    """

    scope: Scope
    cause: str
    reason: str
    hint: str = ""
    transient: bool = True


def unreadable(path: str, reason: str | None) -> Failure:
    """The failure of a file that can't be read, whoever wanted to; `path` as it is told."""
    hint = "give the manager's user the right to read it, or look at the disk"
    return Failure(Scope.FILE, "can't be read", f"{path} can't be read: {reason}", hint)
