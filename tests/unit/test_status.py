"""A status is gathered whole from a ledger, whatever the manager is doing, and never invents anything."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from common.entry import Done, Failed, Report
from common.errors import Failure, Scope
from common.files import Checksum, Fence
from common.ledger.ledger import Ledger
from common.ledger.reader import LedgerReader
from common.ledger.rows import Found, ManagerRow
from common.status import (
    Delivered,
    EndpointState,
    Forecast,
    Load,
    ManagerState,
    Scene,
    StateCount,
    Status,
    Trouble,
    as_json,
    gather,
)
from handoff.lifecycle import LIFECYCLE, SEND

HINT = "mend the reason; it is tried again by itself, or at once by `hdfmgr retry /etc/a.yaml b`"
NOW = 1_795_000_000_000
DENIED = Failure(Scope.FILE, "permission denied", "b can't be read", "chmod")
ROW = ManagerRow(
    pid=4711,
    host="here",
    version="0.1.0",
    started_at=NOW - 3_600_000,
    heartbeat_at=NOW - 400,
    endpoint_state="unreachable",
    endpoint_since=NOW - 60_000,
    endpoint_reason="Connection refused",
    disk={"buffer": {"free_bytes": 500, "total_bytes": 1_000, "free_inodes": 7}},
)


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene("hdfmgr", "summit", LIFECYCLE, "archive", {"buffer": os.fsencode(tmp_path)}, "/etc/a.yaml")


def _fill(path: Path, row: ManagerRow | None = ROW) -> None:
    """One file delivered, one failed, one in flight, one waiting."""
    with Ledger.open(path, LIFECYCLE) as ledger:
        names = (b"a", b"b", b"c", b"d")
        found = [Found(name, Fence(at, 100 * at, at, at)) for at, name in enumerate(names, 1)]
        ledger.record(found, now_ms=NOW - 120_000)
        batch = ledger.claim(SEND, limit=2, max_bytes=1_000, worker=0, now_ms=NOW - 50_000)
        assert batch is not None
        one, other = batch.entries
        outcomes = (
            Done(one.id, SEND.target, Checksum("sha256", "0" * 64)),
            Failed(other.id, DENIED, None),
        )
        ledger.finish(
            batch, Report(outcomes, {"send": 1.0}, 100), backoff=lambda _: 90.0, now_ms=NOW - 40_000
        )
        batch = ledger.claim(SEND, limit=1, max_bytes=1_000, worker=3, now_ms=NOW - 2_000)
        assert batch is not None
        ledger.progress(batch.id, phase="send", progress_bytes=150)
        if row:
            ledger.beat(row)


def _status(path: Path, scene: Scene, *, holder: int | None, now_ms: int = NOW) -> Status:
    with LedgerReader.open(path) as reader:
        return gather(scene, reader, holder=holder, now_ms=now_ms)


def test_the_status_of_a_running_manager_is_whole(ledger_path: Path, scene: Scene) -> None:
    _fill(ledger_path)
    status = _status(ledger_path, scene, holder=4711)
    assert replace(status, disks=()) == Status(
        program="hdfmgr",
        name="summit",
        at_ms=NOW,
        manager=ManagerState(True, 4711, NOW - 3_600_000, 0.4, "0.1.0", ""),
        states=(
            StateCount("found", 1, 400),
            StateCount("sending", 1, 300, "working"),
            StateCount("delivered", 1, 100),
            StateCount("holding", 0, 0, "working"),
            StateCount("held", 0, 0, "done"),
            StateCount("failed", 1, 200, "trouble"),
            StateCount("conflict", 0, 0, "trouble"),
            StateCount("vanished", 0, 0, "aside"),
        ),
        oldest_waiting=120.0,
        goal="delivered",
        rates=(Delivered("1m", 60, 1, 100), Delivered("5m", 300, 1, 100), Delivered("15m", 900, 1, 100)),
        loads=(Load(3, "sending", "send", b"c", 1, 300, 150, 2.0),),
        troubles=(Trouble("failed", "permission denied", 1, b"b", "b can't be read", NOW + 50_000, HINT),),
        endpoint=EndpointState(False, NOW - 60_000, "Connection refused", "archive"),
        disks=(),
        forecast=None,
    )


def test_a_load_knows_its_rate_and_the_time_left() -> None:
    load = Load(3, "sending", "send", b"c", 1, 300, 150, 2.0)
    assert (load.rate, load.left) == (75.0, 2.0)
    assert (replace(load, done=0).rate, replace(load, done=0).left) == (None, None)


def test_of_a_dead_manager_the_last_sign_of_life_is_told_and_no_more(ledger_path: Path, scene: Scene) -> None:
    _fill(ledger_path)
    status = _status(ledger_path, scene, holder=None, now_ms=NOW + 60_000)
    assert status.manager == ManagerState(False, None, NOW - 400, 60.4, "0.1.0", "")
    assert status.endpoint == EndpointState(None, None, "", "archive")
    assert status.loads == ()
    assert [disk.name for disk in status.disks] == ["buffer"]
    assert (status.disks[0].total_bytes or 0) > 1_000


def test_of_a_manager_that_has_ended_it_is_told_what_it_waited_for(ledger_path: Path, scene: Scene) -> None:
    _fill(ledger_path, replace(ROW, paused="the disk is full"))
    ended = _status(ledger_path, scene, holder=None).manager
    assert (ended.paused, ended.was_paused) == ("", "the disk is full")
    running = _status(ledger_path, scene, holder=4711).manager
    assert (running.paused, running.was_paused) == ("the disk is full", "")


def test_what_a_silent_manager_said_of_its_surroundings_is_not_told_as_news(
    ledger_path: Path, scene: Scene
) -> None:
    _fill(ledger_path)
    status = _status(ledger_path, scene, holder=4711, now_ms=NOW + 60_000)
    assert status.manager.running
    assert status.manager.heartbeat_age == 60.4
    assert status.endpoint == EndpointState(None, None, "", "archive")


@pytest.mark.parametrize(
    ("trend", "forecast"),
    [
        ({"free_bytes_per_second": -10, "trend_seconds": 900}, Forecast(-10, 900, 50.0)),
        ({"free_bytes_per_second": 10, "trend_seconds": 900}, Forecast(10, 900, None)),
        ({}, None),
    ],
)
def test_the_forecast_follows_the_trend_that_the_manager_saw(
    ledger_path: Path, scene: Scene, trend: dict[str, int], forecast: Forecast | None
) -> None:
    _fill(ledger_path, replace(ROW, disk={"buffer": {"free_bytes": 500, "total_bytes": 1_000, **trend}}))
    assert _status(ledger_path, scene, holder=4711).forecast == forecast


@pytest.mark.parametrize(
    ("at", "holder", "told"),
    [
        (ROW.started_at + 1, 4711, ROW.started_at + 1),
        (ROW.started_at - 1, 4711, None),
        (ROW.started_at + 1, None, None),
    ],
    ids=["this manager", "the one before", "none that runs"],
)
def test_it_is_told_when_the_running_manager_read_its_configuration_again(
    at: int, holder: int | None, told: int | None, ledger_path: Path, scene: Scene
) -> None:
    _fill(ledger_path)
    with Ledger.open(ledger_path, LIFECYCLE) as ledger:
        ledger.note_renewal(now_ms=at)
    assert _status(ledger_path, scene, holder=holder).manager.renewed_ms == told


def test_without_a_ledger_everything_is_zero_and_the_manager_never_started(scene: Scene) -> None:
    status = gather(scene, None, holder=None, now_ms=NOW)
    assert status.manager == ManagerState(False, None, None, None)
    assert [(count.state, count.files, count.bytes) for count in status.states] == [
        (state, 0, 0) for state in LIFECYCLE.states
    ]


def test_the_json_has_all_that_the_contract_names(ledger_path: Path, scene: Scene) -> None:
    _fill(ledger_path)
    told = json.loads(json.dumps(as_json(_status(ledger_path, scene, holder=4711)), allow_nan=False))
    assert list(told) == [
        *("version", "program", "name", "at", "manager", "states", "oldest_waiting_seconds", "rates"),
        *("workers", "failures", "endpoint", "disk", "buffer_full"),
    ]
    assert told["version"] == 1
    assert told["manager"] == {
        "running": True,
        "pid": 4711,
        "since": "2026-11-18T10:06:40.000Z",
        "heartbeat_age_seconds": 0.4,
        "version": "0.1.0",
        "paused": "",
        "was_paused": "",
        "configuration_read_again": None,
    }
    assert told["states"]["sending"] == {"files": 1, "bytes": 300}
    assert list(told["states"]) == list(LIFECYCLE.states)
    assert told["oldest_waiting_seconds"] == 120.0
    assert told["rates"]["1m"] == {"files": 1, "bytes": 100}
    assert told["failures"] == [
        {
            "state": "failed",
            "cause": "permission denied",
            "files": 1,
            "example": "b",
            "reason": "b can't be read",
            "next_try": "2026-11-18T11:07:30.000Z",
            "hint": HINT,
        }
    ]
    assert told["endpoint"]["reachable"] is False
    assert told["endpoint"]["since"] == "2026-11-18T11:05:40.000Z"
    assert told["disk"]["buffer"] == {"free_bytes": 500, "total_bytes": 1_000, "free_inodes": 7}
    assert told["buffer_full"] is None
    assert told["workers"][0]["example"] == "c"
