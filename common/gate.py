"""A gate before one kind of work: closed while what all files need for it is not well."""

import logging
from dataclasses import dataclass, field

from common.errors import Failure
from common.logs import Steady
from common.retry import Breaker
from common.wording import duration

log = logging.getLogger(__name__)

SETBACKS = 3
"""After so many failures in a row nobody hopes any more that it will be well soon."""


@dataclass(slots=True)
class Gate:
    """Lets work through, or one try now and then. Times are seconds by a monotonic clock."""

    waits: str
    """What waits while it is closed, in words."""
    goes_on: str
    """What goes on once it opens again."""
    first: float = 1.0
    most: float = 30.0
    _breaker: Breaker = field(init=False)
    _steady: Steady = field(default_factory=Steady, init=False)

    def __post_init__(self) -> None:
        self._breaker = Breaker(first=self.first, most=self.most)

    def lets_through(self, *, is_running: bool, now: float) -> bool:
        """Whether more of the work may begin while some of it runs, or does not."""
        if self._breaker.probe_due(now):
            self._breaker.probed()
        return not self._breaker.is_open and not (self.is_on_trial and is_running)

    @property
    def is_on_trial(self) -> bool:
        """Whether one small try is wanted first."""
        return self._breaker.is_half_open

    @property
    def failure(self) -> Failure | None:
        """Why it is closed."""
        return self._breaker.failure

    @property
    def is_hopeful(self) -> bool:
        """Whether it is closed, and may open soon."""
        return self._breaker.is_open and self._breaker.trips < SETBACKS

    def fail(self, failure: Failure, now: float) -> None:
        """Close it, or keep it closed; said once, and then once a minute."""
        self._breaker.trip(failure, now)
        if self._steady.due("gate", failure.cause):
            log.warning("%s: %s; %s", self.waits, failure.reason, failure.hint)

    def succeed(self) -> None:
        """The work was seen to succeed."""
        if not self._breaker.is_open and self._breaker.close():
            lasted = self._steady.ended("gate")
            if lasted is not None:
                log.info("%s after %s", self.goes_on, duration(lasted))

    def patience(self, now: float) -> float | None:
        """Seconds until a try is due; None while it is open."""
        return self._breaker.seconds_to_probe(now)
