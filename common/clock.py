"""The time of day as the ledger counts it, and whether somebody has set it."""

import time
from dataclasses import dataclass


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class SetClock:
    """Notices when somebody sets the clock, from what it tells beside one that nobody can set."""

    least: float = 2.0
    """Seconds of a jump that matters; less is a clock that is being corrected in small steps."""
    _offset: float | None = None

    def jump(self, wall: float, monotonic: float) -> float:
        """Seconds by which the clock was set since this was last asked; 0 if it was not."""
        before, self._offset = self._offset, wall - monotonic
        jump = 0.0 if before is None else self._offset - before
        return jump if abs(jump) >= self.least else 0.0
