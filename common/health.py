"""Checks: each tells named results, OK, WARN or FAIL with a hint, and none can hide or delay another."""

import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from common import wording
from common.clock import now_ms
from common.errors import DbbError, LedgerError
from common.ledger.lock import holder
from common.ledger.reader import LedgerReader
from common.ledger.rows import FAILED, ManagerRow, Total, Waiting
from common.lifecycle import Lifecycle
from common.logs import unwritable
from common.room import Room, room_of
from common.scan import Scanner
from common.wording import duration

_SILENT = (10.0, 60.0)
"""Seconds without a heartbeat, which comes once a second, that are a WARN and a FAIL."""
_OLD = (3_600.0, 86_400.0)
"""Seconds that the oldest file may have waited, likewise."""
_IDLE = 900
"""Seconds without a delivery, while files wait, that are a FAIL; a window of the ledger's rates."""
_SCARCE_INODES = (0.05, 0.01)
"""Shares of free inodes below which there is a WARN and a FAIL."""
_AHEAD = 5.0
"""Seconds that the ledger's times may be ahead of the clock."""
_SCAN = 15.0
"""Seconds that the search for odd files takes at most."""
_NAMED = 5
"""Odd files that are named; the others are counted."""


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


def is_there(ledger: Path) -> bool:
    """Whether there is a ledger yet (empty, it is just being made).

    One that can't be looked at is there, and its reader tells why not.
    """
    try:
        return os.stat(ledger).st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


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


@dataclass(frozen=True, slots=True)
class Subject:
    """What the checks that are common to all managers look at."""

    program: str
    config: Path
    notes: tuple[str, ...]
    """What is allowed in the configuration and yet worth to be told."""
    lifecycle: Lifecycle
    ledger: Path
    buffer: bytes
    exclude: tuple[str, ...]
    disks: Mapping[str, bytes]
    """A directory on each local filesystem that the manager writes to."""
    min_free: int
    """In bytes, on each of these filesystems."""
    log: Path | None
    """The file that messages go to, if there is one."""


def common_checks(subject: Subject) -> list[Check]:
    """What can be known of any manager on this machine."""
    return [
        Check("configuration", lambda: _configuration(subject)),
        Check("ledger", lambda: _ledger(subject)),
        Check("manager", lambda: _manager(subject)),
        Check("files", lambda: _files(subject)),
        Check("clock", lambda: _clock(subject)),
        *(_room_check(f"space: {name}", place, subject.min_free) for name, place in subject.disks.items()),
        Check("odd files", lambda: _odd_files(subject), limit=_SCAN + 5),
        Check("log", lambda: _log(subject.log)),
    ]


def directory(name: str, place: bytes, purpose: str) -> Iterator[Result]:
    """Whether a local directory can be read and written; nothing is made in it."""
    told = wording.path(place)
    if not os.path.isdir(place):
        yield fail(name, f"{told} is not a directory", f"create it: {purpose}")
        return
    try:
        with os.scandir(place) as entries:
            next(entries, None)
    except OSError as error:
        yield fail(name, f"{told}: {error.strerror}", "this user must be able to read and write it")
        return
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        yield fail(name, f"{told} is mounted for reading only", "mount it for writing")
    elif not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        yield fail(name, f"{told} can't be written", "this user must be able to read and write it")
    else:
        yield ok(name, told)


def goal(name: str, place: bytes, buffer: bytes, purpose: str) -> Iterator[Result]:
    """Whether files can be moved from a buffer into a directory, and what that costs."""
    yield from directory(name, place, purpose)
    if os.path.isdir(buffer) and os.path.isdir(place) and os.stat(buffer).st_dev != os.stat(place).st_dev:
        yield warn(
            name,
            "it lies on another filesystem than the buffer: each file is copied into it",
            "put both on one filesystem, where a move costs nothing",
        )


def graded_room(name: str, room: Room, min_free: int) -> Iterator[Result]:
    """Whether there is room, in bytes and in inodes."""
    told = f"{wording.size(room.free_bytes)} of {wording.size(room.total_bytes)}"
    if room.free_bytes < min_free:
        yield fail(name, f"{told}, less than min_free ({wording.size(min_free)})", "make room")
    elif room.free_bytes < 2 * min_free:
        yield warn(name, f"{told}; work pauses below {wording.size(min_free)}", "make room")
    else:
        yield ok(name, told)
    if room.free_inodes is not None and room.total_inodes:
        share = room.free_inodes / room.total_inodes
        verdict = _graded(-share, tuple(-limit for limit in _SCARCE_INODES))
        if verdict is not Verdict.OK:
            told = f"{wording.count(room.free_inodes)} inodes left ({share:.1%})"
            yield Result(name, verdict, told, "remove small files, or make a filesystem with more inodes")


def _room_check(name: str, place: bytes, min_free: int) -> Check:
    return Check(name, lambda: graded_room(name, room_of(place), min_free))


def _configuration(subject: Subject) -> Iterator[Result]:
    yield ok("configuration", f"{subject.config} is valid")
    yield from (ok("configuration", note) for note in subject.notes)


def _ledger(subject: Subject) -> Iterator[Result]:
    path = subject.ledger
    if not is_there(path):
        place = next(above for above in path.parents if above.exists())
        if os.access(place, os.W_OK | os.X_OK):
            yield ok("ledger", f"{path} will be created by the first start")
        else:
            yield fail("ledger", f"{path} can't be created in {place}", "make that directory this user's")
        return
    with LedgerReader.open(path, manager=subject.lifecycle.manager) as reader:
        known = sum(total.files for total in reader.totals())
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK):
        yield ok("ledger", f"{path} knows {wording.files(known)}")
    else:
        yield fail("ledger", f"{path} can't be written", "it and its directory must be this user's")


def _manager(subject: Subject) -> Iterator[Result]:
    pid = holder(subject.ledger)
    row = _row(subject)
    if pid is None and row is None:
        yield _unstarted(subject)
    elif pid is None and row is not None:
        yield fail(
            "manager",
            f"not running; last seen alive {wording.moment(row.heartbeat_at)}",
            f"{subject.program} start {subject.config}",
        )
    elif row is None:
        yield warn("manager", f"process {pid or 'unknown'} is starting", "look again in a moment")
    else:
        yield _heartbeat(row)
        if row.paused:
            yield warn("pause", row.paused, "it goes on by itself once that is mended")


def _unstarted(subject: Subject) -> Result:
    """A manager that has never run is well as long as nothing waits for it."""
    waiting = os.path.isdir(subject.buffer) and any(
        page.files for page in Scanner(subject.buffer, exclude=subject.exclude).pages()
    )
    hint = f"{subject.program} start {subject.config}"
    if waiting:
        return warn("manager", "it was never started with this ledger, and files lie in the buffer", hint)
    return ok("manager", f"it was never started with this ledger: `{hint}`")


def _heartbeat(row: ManagerRow) -> Result:
    age = max(0.0, time.time() - row.heartbeat_at / 1000)
    detail = f"running since {wording.moment(row.started_at)}, process {row.pid}"
    verdict = _graded(age, _SILENT)
    if verdict is Verdict.OK:
        return ok("manager", detail)
    return Result(
        "manager",
        verdict,
        f"{detail}, but silent for {duration(age)}",
        "it hangs, most often on a disk that does not answer: see its messages and `dmesg`",
    )


def _files(subject: Subject) -> Iterator[Result]:
    """How long files wait, whether any get through, and which are in trouble."""
    now = now_ms()
    with _reader(subject) as reader:
        if reader is None:
            return
        oldest = reader.oldest_waiting()
        delivered = reader.rates(subject.lifecycle.goal, now_ms=now, windows=(_IDLE,))
        totals = reader.totals()
    if oldest is None:
        yield ok("oldest waiting", "no file waits")
    else:
        age = max(0.0, (now - oldest.found_at) / 1000)
        yield _oldest(subject, oldest, age)
        if holder(subject.ledger) is not None:
            yield _progress(subject, age, sum(rate.files for rate in delivered.values()))
    yield _failures(subject, totals)


def _oldest(subject: Subject, oldest: Waiting, age: float) -> Result:
    verdict = _graded(age, _OLD)
    why = f": {oldest.reason}" if oldest.reason else ""
    told = f"{wording.path(oldest.path)} has waited for {duration(age)}, and is {oldest.state}{why}"
    hint = f"{subject.program} history {subject.config} {wording.word(oldest.path)}"
    return Result("oldest waiting", verdict, told, "" if verdict is Verdict.OK else hint)


def _progress(subject: Subject, waited: float, through: int) -> Result:
    if through or waited < _IDLE:
        return ok("progress", f"{wording.files(through)} went through in the last {duration(_IDLE)}")
    return fail(
        "progress",
        f"nothing went through in the last {duration(_IDLE)}, though files wait",
        f"{subject.program} status {subject.config} tells what it waits for",
    )


def _failures(subject: Subject, totals: Iterable[Total]) -> Result:
    trouble = Counter[str]()
    for total in totals:
        if total.state in subject.lifecycle.trouble:
            trouble[total.state] += total.files
    told = ", ".join(f"{wording.count(number)} {state}" for state, number in trouble.items() if number)
    if told:
        return warn("failures", told, f"{subject.program} status {subject.config} --failed")
    return ok("failures", f"no file is {FAILED} or waits for a decision")


def _log(file: Path | None) -> Iterator[Result]:
    """Whether messages can be written where the configuration says."""
    if file is None:
        return
    why = unwritable(file)
    if why:
        yield fail("log", f"{file}: {why}", "make its directory, and let the manager's account write there")
    else:
        yield ok("log", str(file))


def _clock(subject: Subject) -> Iterator[Result]:
    row = _row(subject)
    ahead = row.heartbeat_at / 1000 - time.time() if row else 0.0
    if ahead > _AHEAD:
        yield warn(
            "clock",
            f"the ledger was last written {duration(ahead)} in the future",
            "the clock has been set back: compare it with a time server",
        )
    else:
        yield ok("clock", wording.moment(now_ms()))


def _odd_files(subject: Subject) -> Iterator[Result]:
    """What lies in the buffer and will never be taken from there."""
    if not os.path.isdir(subject.buffer):
        # That is what another check tells.
        return
    deadline = time.monotonic() + _SCAN
    told: list[str] = []
    number = files = hidden = 0
    for page in Scanner(subject.buffer, exclude=subject.exclude).pages():
        files += len(page.files)
        hidden += len(page.unreadable)
        found = [f"{wording.path(odd.path) or 'the buffer'} ({odd.reason})" for odd in page.unreadable]
        found += [f"{wording.path(odd.path)} ({odd.kind})" for odd in page.odd]
        number += len(found)
        told += found[: _NAMED - len(told)]
        if time.monotonic() > deadline:
            break
    if number:
        more = f", and {number - len(told)} more" if number > len(told) else ""
        readable = "let the manager's user read and enter the directories, for files in them wait unseen"
        hint = readable if hidden else "only regular files are taken"
        yield warn("odd files", f"left alone in the buffer: {', '.join(told)}{more}", hint)
    else:
        yield ok("odd files", f"none among {wording.files(files)} in the buffer")


def _row(subject: Subject) -> ManagerRow | None:
    with _reader(subject) as reader:
        return reader.manager() if reader else None


@contextmanager
def _reader(subject: Subject) -> Iterator[LedgerReader | None]:
    """The ledger; None where there is none, or one that can't be used, as the check of its name tells."""
    with ExitStack() as stack:
        reader = None
        if is_there(subject.ledger):
            with suppress(LedgerError):
                opened = LedgerReader.open(subject.ledger, manager=subject.lifecycle.manager)
                reader = stack.enter_context(opened)
        yield reader


def _graded(value: float, limits: tuple[float, ...]) -> Verdict:
    """FAIL from the second limit on, WARN from the first."""
    warning, failing = limits
    return Verdict.FAIL if value >= failing else Verdict.WARN if value >= warning else Verdict.OK


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
            hint = "see that this user may look there, and the disk is well"
            self._found.put(fail(self.check.name, str(error), hint))
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
