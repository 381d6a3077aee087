"""What a service manager hears, and what it does not."""

import os
from pathlib import Path

import pytest

from common.supervisor import Supervisor
from tests.supervision import Listener


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Listener:
    return Listener(tmp_path / "notify" if request.param == "path" else f"@dbb-test-{os.getpid()}")


def _all(listener: Listener) -> list[dict[str, str]]:
    listener.heard("READY")
    return listener.messages


def test_each_event_is_one_message(listener: Listener) -> None:
    with listener:
        supervisor = Supervisor(listener.address, wants_beats=True, clock=lambda: 0.0)
        supervisor.ready()
        supervisor.beat(lambda: "1 file\nwaits")
        supervisor.beat(lambda: "asked too early")
        supervisor.stopping()
        assert _all(listener) == [
            {"READY": "1"},
            {"WATCHDOG": "1", "STATUS": "1 file waits"},
            {"WATCHDOG": "1"},
            {"STOPPING": "1", "STATUS": "finishing what is in flight"},
        ]


def test_a_reload_tells_its_time_by_the_monotonic_clock(tmp_path: Path) -> None:
    with Listener(tmp_path / "notify") as listener:
        Supervisor(listener.address).reloading()
        (message,) = _all(listener)
    assert message.keys() == {"RELOADING", "MONOTONIC_USEC"}
    assert message["MONOTONIC_USEC"].isdigit()


@pytest.mark.parametrize(
    ("variables", "beats"),
    [
        ({}, False),
        ({"WATCHDOG_USEC": "1"}, True),
        ({"WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getppid())}, False),
    ],
)
def test_only_who_is_watched_beats(tmp_path: Path, variables: dict[str, str], beats: bool) -> None:
    with Listener(tmp_path / "notify") as listener:
        environment = {"PATH": "/bin", "NOTIFY_SOCKET": listener.address, **variables}
        Supervisor.of(environment).beat(lambda: "well")
        assert _all(listener) == [{**({"WATCHDOG": "1"} if beats else {}), "STATUS": "well"}]
        assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "vsock:2:1"])
def test_where_nobody_listens_nothing_happens(address: str) -> None:
    supervisor = Supervisor(address, wants_beats=True)
    supervisor.ready()
    supervisor.beat(lambda: "well")
    supervisor.stopping()
