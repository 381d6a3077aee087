"""How fast a disk fills, from samples of its free space; light, so that the serve loop can keep one."""

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Trend:
    """The slope of a quantity over the last `window` seconds, by least squares.

    Least squares, because an instrument writes in bursts: two samples alone would tell the phase
    of a burst. Times are seconds by a monotonic clock.
    """

    window: float = 900.0
    spacing: float = 5.0
    """Samples nearer than that to the one before are not kept, so that it stays cheap."""
    least: float = 60.0
    """No slope is told from less than so many seconds."""
    _samples: deque[tuple[float, float]] = field(default_factory=deque, init=False)

    def add(self, now: float, value: float) -> None:
        if self._samples and now - self._samples[-1][0] < self.spacing:
            return
        self._samples.append((now, value))
        while now - self._samples[0][0] > self.window:
            self._samples.popleft()

    @property
    def seconds(self) -> float:
        """The time that the samples span."""
        return self._samples[-1][0] - self._samples[0][0] if self._samples else 0.0

    def per_second(self) -> float | None:
        """Change a second, negative when it shrinks; None while too little is known."""
        if self.seconds < self.least:
            return None
        size = len(self._samples)
        middle = sum(at for at, _ in self._samples) / size
        mean = sum(value for _, value in self._samples) / size
        spread = sum((at - middle) ** 2 for at, _ in self._samples)
        return sum((at - middle) * (value - mean) for at, value in self._samples) / spread

    def row(self) -> dict[str, int]:
        """The slope as the ledger keeps it beside the free space; nothing while too little is known."""
        change = self.per_second()
        if change is None:
            return {}
        return {"free_bytes_per_second": round(change), "trend_seconds": round(self.seconds)}
