"""Giving files that are in trouble another try at once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.ledger.ledger import Ledger
from common.ledger.reader import LedgerReader
from common.lifecycle import Lifecycle


@dataclass(frozen=True, slots=True)
class Miss:
    """A path that named nothing to try again."""

    path: bytes
    states: tuple[str, ...] = ()
    """Where its versions are instead, newest first; empty when the ledger does not know it as a file."""
    is_directory: bool = False
    """Whether there are known files below it, none of which is to be tried again."""


@dataclass(frozen=True, slots=True)
class Retried:
    """What came of asking for another try."""

    files: int
    misses: tuple[Miss, ...] = ()
    cause: str = ""
    """What was to be in the causes, where nothing was found."""
    causes: tuple[str, ...] = ()
    """What is in trouble instead."""

    @property
    def has_missed(self) -> bool:
        """Whether something was named, and not found."""
        return bool(self.misses or self.cause)


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
            number = ledger.retry(cause=cause, states=states, now_ms=now_ms)
            causes = (total.cause for total in ledger.totals() if total.cause)
            if number or not cause:
                return Retried(number)
            return Retried(0, (), cause, tuple(dict.fromkeys(causes)))
        counts = {
            path: ledger.retry(paths=[path], cause=cause, states=states, now_ms=now_ms)
            for path in dict.fromkeys(paths)
        }
        misses = _misses(ledger, (path for path, count in counts.items() if not count))
        return Retried(sum(counts.values()), tuple(misses))


def _misses(ledger: Ledger, missed: Iterable[bytes]) -> Iterator[Miss]:
    paths = list(missed)
    known = ledger.versions(paths)
    with LedgerReader.open(ledger.path) as reader:
        for path in paths:
            states = tuple(version.state for version in known.get(path, ()))
            yield Miss(path, states, not states and reader.knows_below(path))
