"""The writing side of the ledger: the verbs by which entries come, are claimed, and move."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from common.entry import Batch, Report
from common.files import Algorithm
from common.ledger.rows import Found, ManagerRow, Receipt, Recorded, Total, Version
from common.lifecycle import Lifecycle, Step


class Ledger:
    """The one writer. Each verb is one short transaction, and raises `LedgerError` where it can't be had.

    Times are milliseconds since the epoch and come from the caller.
    """

    path: Path
    lifecycle: Lifecycle
    id: str
    """Sixteen hexadecimal digits, drawn when the ledger was created."""

    @classmethod
    def open(
        cls,
        path: Path,
        lifecycle: Lifecycle,
        *,
        create: bool = True,
        busy_timeout: float = 5.0,
        trace: Callable[[str], object] | None = None,
    ) -> "Ledger":
        """Open a ledger, bring its schema up to date, or create it with the directories above it.

        Parameters
        ----------
        create
            Whether a ledger that isn't there is made.
        busy_timeout
            Seconds to wait for another writer.
        trace
            Is given every SQL statement, with its values, before it runs.

        Raises
        ------
        LedgerError
            It can't be used; of a file that isn't a ledger of this kind and version nothing is touched.
        """
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def algorithm(self) -> Algorithm | None:
        """What digests are computed with; None until it has been chosen."""
        raise NotImplementedError

    def choose_algorithm(self, algorithm: Algorithm) -> Algorithm:
        """Settle on an algorithm, once and for all; returns the one that was chosen first."""
        raise NotImplementedError

    def versions(self, paths: Sequence[bytes]) -> dict[bytes, tuple[Version, ...]]:
        """The known versions of each of these paths that has any, newest first."""
        raise NotImplementedError

    def record(self, found: Sequence[Found], *, now_ms: int) -> Recorded:
        """Enter a page of found files: new versions, known ones that came back, renewed fences.

        The files must have been seen after the last `finish`: one that was held since would be taken
        for one that came again.
        """
        raise NotImplementedError

    def claim(
        self,
        step: Step,
        *,
        limit: int,
        max_bytes: int,
        worker: int,
        now_ms: int,
        newest_first: bool = False,
        bulky: bool | None = None,
    ) -> Batch | None:
        """Take up to `limit` entries and `max_bytes` (but at least one entry) into a step.

        What failed before and is due goes first and rides alone, so that a poison file never holds up
        good ones; `bulky` restricts the choice to files that are, or are not.
        """
        raise NotImplementedError

    def finish(
        self, batch: Batch, report: Report, *, backoff: Callable[[int], float | None], now_ms: int
    ) -> int:
        """Write the outcomes of a batch; returns how many of its entries moved.

        `backoff` gives the seconds to wait after so many attempts, None once they are spent. Entries
        without an outcome go back to where they came from; only those that are still in this batch move.
        """
        raise NotImplementedError

    def rescue(self, *, now_ms: int) -> int:
        """Put everything in flight back to where work on it resumes; returns how many entries.

        For the start of a manager. `claims` stay, so that a worker knows to ask what has arrived.
        """
        raise NotImplementedError

    def vanish(self, ids: Sequence[int], *, reason: str, now_ms: int) -> int:
        """Say that the content of these is gone; what is in flight, or settled, stays as it is."""
        raise NotImplementedError

    def retry(
        self,
        *,
        paths: Sequence[bytes] | None = None,
        cause: str | None = None,
        states: Sequence[str] = ("failed",),
        now_ms: int,
    ) -> int:
        """Make entries in trouble eligible at once, with their attempts reset; returns how many.

        `paths` are files, or directories with all below them; None means everywhere. `cause` is any part
        of a cause, in upper or lower case.
        """
        raise NotImplementedError

    def next_due(self, step: Step) -> int | None:
        """When the first entry that failed in this step is to be tried again."""
        raise NotImplementedError

    def reschedule(self, by_ms: int) -> int:
        """Shift all times of next tries, after the clock has been set by so much; returns how many."""
        raise NotImplementedError

    def totals(self) -> tuple[Total, ...]:
        """Files and bytes by state and cause."""
        raise NotImplementedError

    def beat(self, row: ManagerRow) -> None:
        """Say that the manager lives, and how."""
        raise NotImplementedError

    def progress(self, batch_id: int, *, phase: str, progress_bytes: int) -> None:
        """Say how far a batch has come."""
        raise NotImplementedError

    def receipts(self, receipts: Sequence[Receipt]) -> int:
        """Note what the endpoint manager says of known versions; returns how many of these were news."""
        raise NotImplementedError

    def tend(self) -> None:
        """Keep the database in shape: to be called about once a minute, best when idle."""
        raise NotImplementedError
