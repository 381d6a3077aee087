"""SIGHUP: the configuration is read again, and what can change changes."""

import json
import os
import re
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.ledger.lock import holder
from common.process import Background
from tests.archive import Archive
from tests.loopback import REPOSITORY, Sites, files_below, merged, write_file
from tests.runs import Run, assert_delivered_once, counts, eventually

AGAIN = "the configuration was read again, and"


def _change(managed: Sites | Archive, overrides: Mapping[str, object]) -> None:
    """Merge something into the configuration, and tell the manager."""
    config = merged(json.loads(managed.config.read_text()), overrides)
    managed.config.write_text(json.dumps(config, indent=2))
    _hang_up(managed)


def _hang_up(managed: Sites | Archive) -> None:
    pid = holder(managed.ledger)
    assert pid
    os.kill(pid, signal.SIGHUP)


def _up(run: Run, times: int = 1) -> Callable[[], bool]:
    return lambda: run.said.count("resumed") >= times


def test_another_configuration_is_taken_up_by_the_same_process(managed: Sites | Archive) -> None:
    section, old, done = {
        "handoff": ("general", r'["\\.tmp$"]', "held"),
        "endpoint": ("finder", "[]", "ingested"),
    }[managed.kind]
    with Run(managed) as manager:
        eventually(_up(manager))
        before = _status(managed)["manager"]
        other = {"general": {"num_threads": 3}, "logging": {"level": "DEBUG"}}
        _change(managed, merged(other, {section: {"exclude_list": [r"\.skip$"]}}))
        eventually(_up(manager, 2))
        write_file(managed.buffer, b"a.skip", b"a")
        write_file(managed.buffer, b"b.txt", b"b")
        eventually(lambda: counts(managed) == {done: 1})
        after = _status(managed)["manager"]
        assert manager.stop() == 0
    assert (managed.buffer / "a.skip").exists()
    assert (after["pid"], after["since"]) == (before["pid"], before["since"])
    assert (before["configuration_read_again"], after["configuration_read_again"] > after["since"]) == (
        None,
        True,
    )
    told = re.findall(r"INFO:configuration: (.*)", manager.said)
    assert sorted(told) == sorted(
        [
            "general.num_threads: 2 → 3",
            'logging.level: "INFO" → "DEBUG"',
            rf'{section}.exclude_list: {old} → ["\\.skip$"]',
        ]
    )
    assert f"{AGAIN} 3 keys of it have changed: it is taken up once what is in flight is done" in manager.said


@pytest.mark.parametrize("wrong", ["yaml", "key", "ledger", "directory"])
def test_a_configuration_that_can_not_be_used_is_refused_and_the_one_before_goes_on(
    managed: Sites | Archive, wrong: str
) -> None:
    changes: dict[str, dict[str, object]] = {
        "key": {"general": {"num_thread": 3}},
        "ledger": {"database": {"engine": f"sqlite:///{managed.ledger}.other"}},
        "directory": {managed.kind: {"buffer": f"{managed.buffer}-gone"}},
    }
    told = {
        "yaml": f"{managed.config}:2: ",
        "key": "general.num_thread: unknown key; did you mean 'num_threads'?",
        "ledger": f"database.engine: the ledger of a running manager stays {managed.ledger}",
        "directory": f"{managed.kind}.buffer: {managed.buffer}-gone is not a directory",
    }
    with Run(managed) as manager:
        eventually(_up(manager))
        if wrong == "yaml":
            managed.config.write_text("general: [\n")
            _hang_up(managed)
        else:
            _change(managed, changes[wrong])
        eventually(lambda: "the old configuration stays in force" in manager.said)
        (problem,) = re.findall(r"ERROR:configuration refused: (.*)", manager.said)
        assert told[wrong] in problem
        write_file(managed.buffer, b"a.txt", b"a")
        eventually(lambda: set(counts(managed)) <= {"held", "ingested"} and counts(managed))
        assert manager.stop() == 0
    assert manager.said.count("started: ") == 1


def test_a_transfer_under_way_is_finished_first_however_often_it_is_asked(sites: Sites) -> None:
    sites.write_config(general={"bandwidth": "500kB/s", "num_threads": 2})
    content = {b"big.fits": os.urandom(600_000), b"next.fits": b"next"}
    write_file(sites.buffer, b"big.fits", content[b"big.fits"])
    with Run(sites) as manager:
        eventually(lambda: counts(sites) == {"sending": 1})
        _change(sites, {"general": {"bandwidth": None}})
        eventually(lambda: AGAIN in manager.said)
        write_file(sites.buffer, b"next.fits", content[b"next.fits"])
        _change(sites, {"general": {"num_threads": 1}})
        _hang_up(sites)
        eventually(lambda: counts(sites) == {"held": 2})
        eventually(_up(manager, 3))
        assert manager.stop() == 0
    assert "given up" not in manager.said
    assert_delivered_once(sites, content)


def test_a_stop_while_another_configuration_waits_for_its_turn_is_a_stop(sites: Sites) -> None:
    sites.write_config(general={"bandwidth": "500kB/s", "num_threads": 2})
    write_file(sites.buffer, b"big.fits", os.urandom(600_000))
    with Run(sites) as manager:
        eventually(lambda: counts(sites) == {"sending": 1})
        _change(sites, {"general": {"bandwidth": None}})
        eventually(lambda: AGAIN in manager.said)
        assert manager.stop(within=15) == 0
    assert manager.said.count("started: ") == 1
    assert sites.command("start", sites.config, "--once").exit_code == 0
    assert counts(sites) == {"held": 1}


def test_other_logging_alone_disturbs_no_work(managed: Sites | Archive, tmp_path: Path) -> None:
    log = tmp_path / "messages.log"
    with Run(managed) as manager:
        eventually(_up(manager))
        _change(managed, {"logging": {"file": str(log)}})
        eventually(lambda: log.exists() and f"{AGAIN} 1 key of it has changed" in log.read_text())
        log.rename(tmp_path / "messages.log.1")
        _hang_up(managed)
        eventually(lambda: log.exists() and f"{AGAIN} is the same as before" in log.read_text())
        assert manager.stop() == 0
    assert f'configuration: logging.file: null → "{log}"' in manager.said
    assert "stopped" in log.read_text()
    assert "started: " not in log.read_text()


def test_a_daemon_takes_up_another_configuration_and_keeps_its_log(managed: Sites | Archive) -> None:
    log = managed.ledger.with_suffix(".log")
    assert managed.command("start", managed.config, "--daemon", "--quiet").exit_code == 0
    try:
        pid = holder(managed.ledger)
        _change(managed, {"general": {"num_threads": 1}})
        eventually(lambda: log.read_text().count("started: ") == 2)
        assert holder(managed.ledger) == pid
    finally:
        assert managed.command("stop", managed.config).exit_code == 0
    assert "general.num_threads: 2 → 1" in log.read_text()


def test_a_manager_whose_terminal_is_closed_ends(sites: Sites) -> None:
    command = " ".join(sites._argv(("start", sites.write_config())))
    log = sites.directory / "typescript"
    with Background(["script", "-qfc", f"exec {command}", str(log)], cwd=REPOSITORY) as terminal:
        eventually(lambda: log.exists() and "started: " in log.read_text())
        pid = holder(sites.ledger)
        assert pid
        os.kill(pid, signal.SIGHUP)
        eventually(lambda: AGAIN in log.read_text())
        manager = psutil.Process(pid)
        os.kill(terminal.pid, signal.SIGKILL)
        eventually(lambda: not manager.is_running())
    assert holder(sites.ledger) is None
    assert files_below(sites.buffer) == {}


def _status(managed: Sites | Archive) -> Any:
    return json.loads(managed.command("status", managed.config, "--json").stdout)
