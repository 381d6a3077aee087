"""Giving files that are in trouble another try at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.ledger.ledger import Ledger
from common.lifecycle import Lifecycle


@dataclass(frozen=True, slots=True)
class Miss:
    """A path that named nothing to try again."""

    path: bytes
    states: tuple[str, ...]
    """Where its versions are instead, newest first; empty when the ledger does not know it."""


@dataclass(frozen=True, slots=True)
class Retried:
    """What came of asking for another try."""

    files: int
    misses: tuple[Miss, ...] = ()


def retry(
    ledger_path: Path,
    lifecycle: Lifecycle,
    paths: Sequence[bytes],
    cause: str | None,
    states: Sequence[str],
    now_ms: int,
) -> Retried:
    """Make files eligible at once, with their attempts reset; no paths means all of them.

    Raises
    ------
    LedgerError
        There is no ledger, or it can't be used.
    """
    with Ledger.open(ledger_path, lifecycle, create=False) as ledger:
        if not paths:
            return Retried(ledger.retry(cause=cause, states=states, now_ms=now_ms))
        counts = {
            path: ledger.retry(paths=[path], cause=cause, states=states, now_ms=now_ms)
            for path in dict.fromkeys(paths)
        }
        missed = [path for path, count in counts.items() if not count]
        known = ledger.versions(missed)
        misses = (Miss(path, tuple(version.state for version in known.get(path, ()))) for path in missed)
        return Retried(sum(counts.values()), tuple(misses))
