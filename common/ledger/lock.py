"""One manager per ledger: a lock that dies with its process, and tells who holds it."""

from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from common.errors import DbbError


class LedgerHeld(DbbError):  # noqa: N818 - it says what is the case
    """Another manager has this ledger."""

    exit_code: ClassVar[int] = 0

    def __init__(self, pid: int, ledger: Path) -> None:
        super().__init__(f"a manager (process {pid}) already works with {ledger}")
        self.pid = pid


class ManagerLock:
    """The lock of a ledger, in the file ``<ledger>.lock``; a context manager that takes it."""

    def __init__(self, ledger: Path) -> None:
        raise NotImplementedError

    def acquire(self) -> None:
        """Take it.

        Raises
        ------
        LedgerHeld
            Another process has it.
        LedgerError
            The lock file can't be made or written.
        """
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def holder(ledger: Path) -> int | None:
    """The process that has this ledger, without ever taking the lock.

    Raises
    ------
    LedgerError
        The lock file is there but can't be read.
    """
    raise NotImplementedError
