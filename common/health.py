"""Checks: each tells named results, OK, WARN or FAIL with a hint, and none can hide or delay another."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from common.errors import DbbError
from common.wording import duration


class Verdict(StrEnum):
    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found."""

    name: str
    verdict: Verdict
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at that tells one result or several, within a time limit."""

    name: str
    """Under which it is told when the look itself fails or does not end."""
    look: Callable[[], Iterable[Result]]
    limit: float = 10.0
    """Seconds."""


def ok(name: str, detail: str) -> Result:
    return Result(name, Verdict.OK, detail)


def warn(name: str, detail: str, hint: str = "") -> Result:
    return Result(name, Verdict.WARN, detail, hint)


def fail(name: str, detail: str, hint: str = "") -> Result:
    return Result(name, Verdict.FAIL, detail, hint)


def examine(checks: Sequence[Check]) -> Iterator[Result]:
    """Look at everything at once; results come in the order of the checks, each as soon as it is known.

    Every check has a thread of its own, because a dead network mount holds whoever touches it in
    the kernel for ever: what does not answer in time is told as that and left behind.
    """
    started = time.monotonic()
    looks = [_Look(check) for check in checks]
    for look in looks:
        yield from look.results(started + look.check.limit)


def worst(results: Iterable[Result]) -> Verdict:
    """The verdict on the whole."""
    verdicts = {result.verdict for result in results}
    return next((verdict for verdict in (Verdict.FAIL, Verdict.WARN) if verdict in verdicts), Verdict.OK)


def exit_code(verdict: Verdict) -> int:
    return {Verdict.OK: 0, Verdict.WARN: 5, Verdict.FAIL: 4}[verdict]


def as_json(results: Sequence[Result]) -> dict[str, object]:
    """The results as `check --json` prints them."""
    return {
        "version": 1,
        "results": [
            {
                "name": result.name,
                "status": result.verdict.value,
                "detail": result.detail,
                "hint": result.hint,
            }
            for result in results
        ],
    }


class _Look:
    """One check under way in its thread."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self._found: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=check.name, daemon=True).start()

    def results(self, deadline: float) -> Iterator[Result]:
        while True:
            try:
                found = self._found.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                yield fail(
                    self.check.name,
                    f"no answer within {duration(self.check.limit)}",
                    "a network mount or a connection hangs; try the same by hand",
                )
                return
            if found is None:
                return
            yield found

    def _run(self) -> None:
        try:
            for result in self.check.look():
                self._found.put(result)
        except DbbError as error:
            self._found.put(fail(self.check.name, error.message, error.hint))
        except OSError as error:
            self._found.put(fail(self.check.name, str(error)))
        except Exception as error:  # noqa: BLE001 - one check that breaks must not hide the others
            self._found.put(
                fail(
                    self.check.name,
                    f"the check itself failed: {error!r}",
                    "this is a fault of the program: report it",
                )
            )
        finally:
            self._found.put(None)
