"""What the manager knows of the endpoint, and whether there is any sense in sending to it now."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from common.clock import now_ms
from common.entry import Batch, Entry, Failed, Outcome, Report
from common.errors import Failure, Scope
from common.gate import SETBACKS
from common.logs import Steady
from common.remote import ENDPOINT_FULL
from common.retry import Breaker
from common.room import Room
from common.wording import duration, size
from common.wording import path as shown
from handoff.survey import Survey

log = logging.getLogger(__name__)

_LOOK_EVERY = 600.0
"""Seconds between two looks at the endpoint while all goes well."""
_TRIAL_WAIT, _TRIAL_WAIT_MOST = 2.5, 60.0
"""Seconds after which a file is sent again where only sending shows what is wrong; doubled each time."""


class Outlook:
    """Keeps the circuit breaker of the endpoint, and says once what is wrong there, then once a minute.

    Times are seconds by a monotonic clock.

    Parameters
    ----------
    min_free
        Below so many free bytes nothing is sent there.
    """

    def __init__(self, min_free: int) -> None:
        self._min_free = min_free
        self._needed = 0
        """The size of a file that did not fit."""
        self._trials = 0
        """How often a batch has failed although a look before it had found nothing wrong."""
        self._next_trial = 0.0
        self._breaker = Breaker(first=1.0, most=5.0)
        self._steady = Steady()
        self._is_looking = False
        self._next_look = 0.0
        self._reachable: bool | None = None
        self.survey: Survey | None = None
        """The newest one that succeeded."""
        self.room: Mapping[str, Room] = {}
        """Of ``staging`` and ``buffer``."""
        self.since: int | None = None
        """Since when it is what `state` says, in milliseconds since the epoch."""

    @property
    def state(self) -> Literal["reachable", "unreachable", "unknown"]:
        if self._reachable is None:
            return "unknown"
        return "reachable" if self._reachable else "unreachable"

    @property
    def failure(self) -> Failure | None:
        """Why nothing is sent there; None while all is well, as far as is known."""
        if self.is_on_trial and not self._trials:
            # A look has found it over since; there may be no file to show that the rest is well, too.
            return None
        return self._breaker.failure

    @property
    def is_on_trial(self) -> bool:
        """Whether it has failed, and the next batch is to show whether all is well again."""
        return self._breaker.is_half_open

    @property
    def spare(self) -> int | None:
        """So many bytes may still be sent there; None while that is not known."""
        free = min((room.free_bytes for room in self.room.values()), default=None)
        return None if free is None else free - self._min_free

    @property
    def is_hopeful(self) -> bool:
        """Whether a look is under way, or still to come, after which files may soon be sent."""
        is_unsettled = self._is_looking or self.survey is None or self._breaker.is_open
        return is_unsettled and self._breaker.trips < SETBACKS

    def is_look_due(self, now: float) -> bool:
        due = self._breaker.probe_due(now) if self._breaker.is_open else now >= self._next_look
        return due and not self._is_looking

    def patience(self, now: float) -> float:
        """Seconds until a look is due."""
        probe = self._breaker.seconds_to_probe(now)
        if self._is_looking:
            return _LOOK_EVERY
        return max(0.0, self._next_look - now) if probe is None else probe

    def look_began(self) -> None:
        self._is_looking = True

    def look_soon(self) -> None:
        """Let the next look come as soon as it can (there is something to clear away)."""
        self._next_look = 0.0

    def looked(self, survey: Survey, now: float) -> None:
        """Learn from a look that reached the endpoint."""
        self._is_looking = False
        self._next_look = now + _LOOK_EVERY
        self.survey, self.room = survey, survey.space
        self._see(reachable=True)
        failure = survey.failure or self.lack_of_space()
        if failure:
            self.fail(failure, now)
        elif self._breaker.is_open:
            self._breaker.probed()

    def look_failed(self, failure: Failure, now: float) -> None:
        self._is_looking = False
        self.fail(failure, now)

    def may_send(self, *, is_sending: bool, now: float) -> bool:
        """Whether a batch may be sent now; after a failure one goes first, alone."""
        if self.survey is None or self._breaker.is_open:
            return False
        if self.is_on_trial and (is_sending or now < self._next_trial):
            return False
        failure = self.lack_of_space()
        if failure:
            self.fail(failure, now)
        return failure is None

    def fail(self, failure: Failure, now: float, *, needed: int = 0) -> None:
        """Something went wrong that concerns every file; `needed` is the size of the largest of them."""
        if failure.cause == ENDPOINT_FULL:
            self._needed = max(self._needed, needed)
        if self._breaker.is_half_open and failure.scope is Scope.ENDPOINT:
            # A quota, say, shows only when it is too late: whole files must not be sent in vain for ever.
            self._trials += 1
            self._next_trial = now + min(_TRIAL_WAIT_MOST, _TRIAL_WAIT * 2 ** min(self._trials, 16))
        self._breaker.trip(failure, now)
        if failure.scope is Scope.CONNECTION:
            self._see(reachable=False)
        if self._steady.due("endpoint", failure.cause):
            log.warning("deliveries wait: %s: %s; %s", failure.cause, failure.reason, failure.hint)

    def succeed(self) -> None:
        """A batch arrived; if it was under way when things went wrong, that says nothing of now."""
        if self._breaker.is_open:
            return
        self._needed, self._trials, self._next_trial = 0, 0, 0.0
        self._see(reachable=True)
        if self._breaker.close():
            lasted = self._steady.ended("endpoint")
            if lasted is not None:
                log.info("deliveries go on after %s", duration(lasted))

    def spared(self, batch: Batch, report: Report) -> Report:
        """The report, with a file that is larger than the whole disk there in trouble by itself."""
        total = min((room.total_bytes for room in self.room.values()), default=0)
        large = {entry.id: entry for entry in batch.entries if total and entry.fence.size > total}

        def judged(outcome: Outcome) -> Outcome:
            entry = large.get(outcome.entry_id)
            if entry and isinstance(outcome, Failed) and outcome.failure.cause == ENDPOINT_FULL:
                return replace(outcome, failure=_too_large(entry, total))
            return outcome

        return replace(report, outcomes=tuple(map(judged, report.outcomes))) if large else report

    def lack_of_space(self) -> Failure | None:
        for name, room in self.room.items():
            if room.free_bytes < self._min_free:
                lack = f"below general.min_free of {size(self._min_free)}"
            elif room.free_bytes < min(self._needed, room.total_bytes):
                lack = f"and {size(self._needed)} are needed for one file"
            else:
                continue
            reason = f"{size(room.free_bytes)} are free in the endpoint's {name}, {lack}"
            return Failure(Scope.ENDPOINT, ENDPOINT_FULL, reason, "free space there; it goes on by itself")
        return None

    def _see(self, *, reachable: bool) -> None:
        if reachable is not self._reachable:
            self._reachable, self.since = reachable, now_ms()


def _too_large(entry: Entry, total: int) -> Failure:
    reason = f"{shown(entry.path)} has {size(entry.fence.size)}, and the endpoint's disk {size(total)} in all"
    hint = "enlarge that, or move the file away; then `retry`"
    return Failure(Scope.FILE, "larger than the endpoint's disk", reason, hint, transient=False)
