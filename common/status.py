"""What a manager is doing and why it is not doing more, gathered from its ledger at one moment."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from common.advice import advice
from common.ledger.reader import LedgerReader
from common.ledger.rows import Carried, FailureGroup, ManagerRow, Rate, Total
from common.lifecycle import Lifecycle
from common.room import room_of
from common.wording import json_moment, json_path

Kind = Literal["waiting", "working", "done", "trouble", "aside"]
"""What a state means to an operator: `trouble` wants one, `aside` does not."""
_FRESH_MS = 10_000
"""What a manager said of its surroundings is believed for so long; it says it once a second."""
_WINDOWS = {"1m": 60, "5m": 300, "15m": 900}
"""In seconds, by the names that the ledger's reader has for them."""
_TELLING = 2.0
"""The first bytes of a transfer are names and greetings: no rate is told from less than so many seconds."""


@dataclass(frozen=True, slots=True)
class ManagerState:
    """Whether the manager lives, and since when."""

    running: bool
    pid: int | None
    """None unless it runs."""
    since_ms: int | None
    """When it was started; of one that does not run, when it was last seen alive. None: never started."""
    heartbeat_age: float | None
    """Seconds since it last said that it lives."""
    version: str = ""
    paused: str = ""
    """Why it takes no new work, when it does not."""
    was_paused: str = ""
    """Of one that does not run: why it took none when it was last seen alive."""
    renewed_ms: int | None = None
    """When it read its configuration again; None: not since its start, or it does not run."""


@dataclass(frozen=True, slots=True)
class StateCount:
    """How much lies in one state of the lifecycle."""

    state: str
    files: int
    bytes: int
    kind: Kind = "waiting"


@dataclass(frozen=True, slots=True)
class Delivered:
    """What reached its goal within one window of time."""

    label: str
    """``1m``, ``5m``, ``15m``."""
    seconds: float
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Load:
    """What one worker carries now."""

    worker: int
    step: str
    """The state of its files."""
    phase: str
    path: bytes
    """One of its files."""
    files: int
    bytes: int
    done: int
    """Of these bytes, those that are through the phase."""
    seconds: float
    """Since it began."""

    @property
    def rate(self) -> float | None:
        """Bytes a second so far; None while too little is known."""
        return self.done / self.seconds if self.done and self.seconds >= _TELLING else None

    @property
    def left(self) -> float | None:
        """Seconds until its bytes are through at that rate; None where that is not known, or past."""
        return (self.bytes - self.done) / self.rate if self.rate and self.done < self.bytes else None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Files that did not make it for one and the same cause."""

    state: str
    cause: str
    files: int
    example: bytes
    reason: str
    """Of the example."""
    next_try_ms: int | None
    """The earliest of them; None: they wait for `retry`."""
    hint: str = ""
    """What to do."""


@dataclass(frozen=True, slots=True)
class EndpointState:
    """Whether the other site answers; `reachable` is None where nothing is known."""

    reachable: bool | None
    since_ms: int | None = None
    reason: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Disk:
    """The room on one filesystem that the manager writes to."""

    name: str
    free_bytes: int
    total_bytes: int | None = None
    free_inodes: int | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """When the buffer's filesystem is full if its free space goes on changing as it lately did."""

    change: float
    """Bytes a second, negative when it fills: the least-squares slope of the samples."""
    basis: float
    """Seconds that the samples span."""
    full_in: float | None
    """Seconds; None when it does not fill."""


@dataclass(frozen=True, slots=True)
class Status:
    """All that `status` tells."""

    program: str
    name: str
    """Of the configuration."""
    at_ms: int
    manager: ManagerState
    states: tuple[StateCount, ...]
    """Every state of the lifecycle in its order, the empty ones too."""
    oldest_waiting: float | None
    """Seconds that the file has waited which has waited longest."""
    goal: str
    """The state that `rates` are about."""
    rates: tuple[Delivered, ...]
    loads: tuple[Load, ...]
    troubles: tuple[Trouble, ...]
    endpoint: EndpointState | None
    """None for a manager that has no other site."""
    disks: tuple[Disk, ...]
    forecast: Forecast | None
    words: tuple[StateCount, ...] = ()
    """The same files as `states` has, in other words, when somebody wants these."""
    ledger: str = ""
    """The file that was asked, or that would have been, were it there."""


@dataclass(frozen=True, slots=True)
class Words:
    """Other words for the states."""

    all: tuple[str, ...]
    of: Callable[[str, str], str]
    """The word for a state and the cause of it, which is empty where there is none."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known of a manager without its ledger."""

    program: str
    name: str
    """Of the configuration."""
    lifecycle: Lifecycle
    host: str | None = None
    """The other site's, if there is one."""
    disks: Mapping[str, bytes] = field(default_factory=dict)
    """A directory on each local filesystem that the manager writes to."""
    config: str = "CONFIG"
    """The configuration's file, as a word for a shell."""
    words: Words | None = None
    """Those that are wanted beside the names of the states."""
    ledger: str = ""
    """Its file."""


def gather(scene: Scene, reader: LedgerReader | None, *, holder: int | None, now_ms: int) -> Status:
    """Read all of a status as of one instant.

    Parameters
    ----------
    reader
        None when there is no ledger yet.
    holder
        The process that holds the ledger's lock; 0 where the kernel can't name it.
    """
    if reader is None:
        return _status(scene, None, (), holder, now_ms)
    with reader.snapshot():
        waiting = reader.oldest_waiting()
        return _status(
            scene,
            reader.manager(),
            reader.totals(),
            holder,
            now_ms,
            renewed_at=reader.renewed_at(),
            oldest_waiting=None if waiting is None else max(0.0, (now_ms - waiting.found_at) / 1000),
            rates=reader.rates(scene.lifecycle.goal, now_ms=now_ms, windows=tuple(_WINDOWS.values())),
            carried=reader.carrying(),
            failures=reader.failures(),
        )


def _status(
    scene: Scene,
    row: ManagerRow | None,
    totals: Collection[Total],
    holder: int | None,
    now_ms: int,
    *,
    renewed_at: int | None = None,
    oldest_waiting: float | None = None,
    rates: Mapping[str, Rate] | None = None,
    carried: Iterable[Carried] = (),
    failures: Iterable[FailureGroup] = (),
) -> Status:
    running = holder is not None
    fresh = row if row is not None and running and now_ms - row.heartbeat_at <= _FRESH_MS else None
    return Status(
        program=scene.program,
        name=scene.name,
        at_ms=now_ms,
        manager=_manager(row, renewed_at, holder, now_ms),
        states=_states(scene.lifecycle, totals),
        oldest_waiting=oldest_waiting,
        goal=scene.lifecycle.goal,
        rates=tuple(_delivered(label, (rates or {}).get(label)) for label in _WINDOWS),
        loads=tuple(_carried(load, now_ms) for load in carried) if running else (),
        troubles=tuple(_failures(scene, group) for group in failures),
        endpoint=None if scene.host is None else _other_site(scene.host, fresh),
        disks=_disks(scene.disks, fresh),
        forecast=_forecast(fresh),
        words=() if scene.words is None else _words(scene.lifecycle, scene.words, totals),
        ledger=scene.ledger,
    )


def _manager(row: ManagerRow | None, renewed_at: int | None, holder: int | None, now_ms: int) -> ManagerState:
    running = holder is not None
    # The kernel can't name a process of another container or host.
    pid = holder if holder is not None and holder > 0 else None
    if row is None:
        return ManagerState(running, pid, None, None)
    return ManagerState(
        running=running,
        pid=pid,
        since_ms=row.started_at if running else row.heartbeat_at,
        heartbeat_age=max(0.0, (now_ms - row.heartbeat_at) / 1000),
        version=row.version,
        paused=row.paused if running else "",
        was_paused="" if running else row.paused,
        renewed_ms=renewed_at if running and (renewed_at or 0) > row.started_at else None,
    )


def _states(lifecycle: Lifecycle, totals: Iterable[Total]) -> tuple[StateCount, ...]:
    files = dict.fromkeys(lifecycle.states, 0)
    size = dict.fromkeys(lifecycle.states, 0)
    for total in totals:
        files[total.state] = files.get(total.state, 0) + total.files
        size[total.state] = size.get(total.state, 0) + total.bytes
    return tuple(StateCount(state, files[state], size[state], _kind(lifecycle, state)) for state in files)


def _words(lifecycle: Lifecycle, words: Words, totals: Iterable[Total]) -> tuple[StateCount, ...]:
    files = dict.fromkeys(words.all, 0)
    size = dict.fromkeys(words.all, 0)
    kinds: dict[str, Kind] = {}
    for total in totals:
        word = words.of(total.state, total.cause)
        files[word] += total.files
        size[word] += total.bytes
        if kinds.get(word) != "trouble":
            kinds[word] = _kind(lifecycle, total.state)
    return tuple(StateCount(word, files[word], size[word], kinds.get(word, "waiting")) for word in files)


def _kind(lifecycle: Lifecycle, state: str) -> Kind:
    if state in lifecycle.resume:
        return "working"
    if state == lifecycle.steps[-1].target:
        return "done"
    if state in lifecycle.exits:
        # What an operator can send back is in trouble; what stays where it is was settled otherwise.
        return "trouble" if state in lifecycle.trouble else "aside"
    return "waiting"


def _delivered(label: str, rate: Rate | None) -> Delivered:
    return Delivered(label, _WINDOWS[label], rate.files if rate else 0, rate.bytes if rate else 0)


def _carried(carried: Carried, now_ms: int) -> Load:
    return Load(
        worker=carried.worker,
        step=carried.step,
        phase=carried.phase,
        path=carried.example,
        files=carried.files,
        bytes=carried.bytes,
        done=min(carried.progress_bytes, carried.bytes),
        seconds=max(0.0, (now_ms - carried.since) / 1000),
    )


def _failures(scene: Scene, group: FailureGroup) -> Trouble:
    is_due = group.next_try is not None
    hint = advice(
        scene.program,
        scene.config,
        group.state,
        group.cause,
        is_due=is_due,
        example=group.example,
        single=group.files == 1,
    )
    return Trouble(group.state, group.cause, group.files, group.example, group.reason, group.next_try, hint)


def _other_site(host: str, row: ManagerRow | None) -> EndpointState:
    if row is None or row.endpoint_state == "unknown":
        return EndpointState(None, None, "", host)
    reachable = row.endpoint_state == "reachable"
    return EndpointState(reachable, row.endpoint_since, row.endpoint_reason, host)


def _disks(places: Mapping[str, bytes], row: ManagerRow | None) -> tuple[Disk, ...]:
    """As the manager saw them a moment ago; without it the local ones, looked at now."""
    if row is not None and row.disk:
        return tuple(
            Disk(name, room.get("free_bytes", 0), room.get("total_bytes"), room.get("free_inodes"))
            for name, room in row.disk.items()
        )
    return tuple(disk for disk in (_measured(name, place) for name, place in places.items()) if disk)


def _measured(name: str, place: bytes) -> Disk | None:
    try:
        room = room_of(place)
    except OSError:
        return None
    return Disk(name, room.free_bytes, room.total_bytes, room.free_inodes)


def _forecast(row: ManagerRow | None) -> Forecast | None:
    buffer = row.disk.get("buffer", {}) if row is not None else {}
    if "free_bytes_per_second" not in buffer:
        return None
    change = buffer["free_bytes_per_second"]
    full_in = buffer["free_bytes"] / -change if change < 0 else None
    return Forecast(change, buffer.get("trend_seconds", 0), full_in)


def as_json(status: Status) -> dict[str, object]:
    """A status as `status --json` prints it; keys are added to it, never changed."""
    manager, endpoint = status.manager, status.endpoint
    return {
        "version": 1,
        "program": status.program,
        "name": status.name,
        "at": json_moment(status.at_ms),
        "manager": {
            "running": manager.running,
            "pid": manager.pid,
            "since": json_moment(manager.since_ms),
            "heartbeat_age_seconds": manager.heartbeat_age,
            "version": manager.version,
            "paused": manager.paused,
            "was_paused": manager.was_paused,
            "configuration_read_again": json_moment(manager.renewed_ms),
        },
        "states": _counts(status.states),
        "oldest_waiting_seconds": status.oldest_waiting,
        "rates": {rate.label: {"files": rate.files, "bytes": rate.bytes} for rate in status.rates},
        "workers": [_load(load) for load in status.loads],
        "failures": [_trouble(trouble) for trouble in status.troubles],
        "endpoint": None if endpoint is None else _endpoint(endpoint),
        "disk": {disk.name: _disk(disk) for disk in status.disks},
        "buffer_full": None if status.forecast is None else _outlook(status.forecast),
        **({"words": _counts(status.words)} if status.words else {}),
    }


def _counts(states: tuple[StateCount, ...]) -> dict[str, object]:
    return {count.state: {"files": count.files, "bytes": count.bytes} for count in states}


def _load(load: Load) -> dict[str, object]:
    return {
        "worker": load.worker,
        "state": load.step,
        "phase": load.phase,
        "files": load.files,
        "bytes": load.bytes,
        "bytes_done": load.done,
        "seconds": load.seconds,
        "bytes_per_second": load.rate,
        "seconds_left": load.left,
        "example": json_path(load.path),
    }


def _trouble(trouble: Trouble) -> dict[str, object]:
    return {
        "state": trouble.state,
        "cause": trouble.cause,
        "files": trouble.files,
        "example": json_path(trouble.example),
        "reason": trouble.reason,
        "next_try": json_moment(trouble.next_try_ms),
        "hint": trouble.hint,
    }


def _endpoint(endpoint: EndpointState) -> dict[str, object]:
    return {
        "host": endpoint.host,
        "reachable": endpoint.reachable,
        "since": json_moment(endpoint.since_ms),
        "reason": endpoint.reason,
    }


def _disk(disk: Disk) -> dict[str, object]:
    return {
        "free_bytes": disk.free_bytes,
        "total_bytes": disk.total_bytes,
        "free_inodes": disk.free_inodes,
    }


def _outlook(forecast: Forecast) -> dict[str, object]:
    return {
        "in_seconds": forecast.full_in,
        "free_bytes_per_second": forecast.change,
        "basis_seconds": forecast.basis,
    }
