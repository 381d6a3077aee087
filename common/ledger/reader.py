"""The reading side of the ledger, for `status`, `history` and `check`: never writes, never in the way."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from common.files import Algorithm
from common.ledger.rows import (
    Carried,
    FailureGroup,
    ManagerRow,
    Rate,
    Total,
    VersionStory,
    Waiting,
)


class LedgerReader:
    """Reads a ledger, whether a manager has it open or not."""

    path: Path
    id: str
    manager_kind: str
    """Whose ledger it is: ``handoff`` or ``endpoint``."""
    algorithm: Algorithm | None

    @classmethod
    def open(cls, path: Path, *, manager: str | None = None) -> "LedgerReader":
        """Open a ledger; with `manager`, only one of that kind.

        Raises
        ------
        LedgerError
            It isn't there, isn't a ledger of this kind and version, or can't be read; the hint says more.
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

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let several questions be answered as of one instant; while it lasts, the log of changes grows."""
        raise NotImplementedError
        yield

    def totals(self) -> tuple[Total, ...]:
        """Files and bytes by state and cause."""
        raise NotImplementedError

    def waits(self) -> tuple[Waiting, ...]:
        """For each state that is not settled: its longest waiting file, and why that waits."""
        raise NotImplementedError

    def oldest_waiting(self) -> Waiting | None:
        """The file that has waited longest, of all that are not settled."""
        raise NotImplementedError

    def rates(self, *, now_ms: int, windows: Sequence[int] = (60, 300, 900)) -> dict[str, Rate]:
        """What the first step completed (deliveries, say), by window: ``1m``, ``5m``, ``15m``."""
        raise NotImplementedError

    def arrivals(self, *, now_ms: int, windows: Sequence[int] = (60, 300, 900)) -> dict[str, Rate]:
        """What was found, by window."""
        raise NotImplementedError

    def failures(self, limit: int = 20) -> tuple[FailureGroup, ...]:
        """What is in trouble, grouped by cause, the largest groups first."""
        raise NotImplementedError

    def carrying(self) -> tuple[Carried, ...]:
        """The batches in flight, by worker."""
        raise NotImplementedError

    def manager(self) -> ManagerRow | None:
        """What the last manager said of itself; None if there never was one."""
        raise NotImplementedError

    def history(self, path: bytes) -> tuple[VersionStory, ...]:
        """Every version of a path, newest first."""
        raise NotImplementedError
