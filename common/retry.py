"""When to try again: a file's own backoff, and the breaker that spares all files."""

import random
from dataclasses import dataclass, field

from common.errors import Failure


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential waiting with jitter and a cap, until the attempts are spent."""

    attempts: int
    """Failures after which a file waits for a person."""
    first: float
    """Seconds before the second attempt."""
    factor: float
    most: float
    """No wait is longer, in seconds."""

    def delay(self, failures: int, dice: random.Random) -> float | None:
        """Seconds to wait after so many failures; None once the attempts are spent.

        The wait lies between the half and the whole of its nominal length, so that files that
        failed together do not come back together.
        """
        if failures >= self.attempts:
            return None
        # The exponent is bounded: a float overflows long before a patient operator gives up.
        nominal = min(self.most, self.first * self.factor ** min(failures - 1, 64))
        return nominal * dice.uniform(0.5, 1.0)


@dataclass(slots=True)
class Breaker:
    """Stops work that cannot succeed for now, and lets one try through from time to time.

    Closed: work goes on. Open: nothing is let through until `probe_due`. After a probe that
    succeeded it is half open: one try at a time, whose success closes it. Times are seconds by a
    monotonic clock.
    """

    first: float = 1.0
    most: float = 5.0
    failure: Failure | None = None
    """Why it is open, or was last."""
    trips: int = 0
    """How often it was tripped since it was last closed."""
    _open: bool = field(default=False, init=False)
    _proven: bool = field(default=True, init=False)
    _wait: float = field(default=0.0, init=False)
    _next_probe: float = field(default=0.0, init=False)

    @property
    def is_open(self) -> bool:
        return self._open

    @property
    def is_half_open(self) -> bool:
        return not self._open and not self._proven

    def trip(self, failure: Failure, now: float) -> bool:
        """Open it, or keep it open and wait longer; tells whether it was closed until now.

        What fails before a probe is due was under way when it opened, and makes nothing worse.
        """
        if self._open and now < self._next_probe:
            self.failure = failure
            return False
        news = self._proven
        self.trips += 1
        self._wait = min(self.most, self._wait * 2) if self._wait else self.first
        self._next_probe = now + self._wait
        self._open, self._proven, self.failure = True, False, failure
        return news

    def probe_due(self, now: float) -> bool:
        return self._open and now >= self._next_probe

    def seconds_to_probe(self, now: float) -> float | None:
        """Seconds until the next probe; None unless it is open."""
        return max(0.0, self._next_probe - now) if self._open else None

    def probed(self) -> None:
        """The probe succeeded: let one try through."""
        self._open = False

    def close(self) -> bool:
        """Real work succeeded; tells whether that is news."""
        news = not self._proven
        self._open, self._proven, self._wait, self.failure, self.trips = False, True, 0.0, None, 0
        return news
