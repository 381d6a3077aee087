"""The managers as services of systemd: what they say to it, and the units that start them."""

import os
import re
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from common.process import Background, Completed, run
from tests.archive import Archive
from tests.loopback import REPOSITORY, Sites, write_file
from tests.runs import Run, counts, descendants, eventually
from tests.supervision import Listener

_UNITS = {"handoff": "handoff/etc/hdfmgr@.service", "endpoint": "endpoint/etc/endmgr@.service"}
_DROP_INS = re.findall(r"^```ini\n(.*?)^```", (REPOSITORY / "docs/systemd.md").read_text(), re.S | re.M)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with Listener(tmp_path / "notify") as listener:
        yield listener


def test_a_manager_says_that_it_is_ready_lives_and_stops(
    managed: Sites | Archive, listener: Listener
) -> None:
    with Run(managed, env=listener.environment) as manager:
        eventually(lambda: listener.heard("WATCHDOG"))
        # Nothing is to be done, and it beats all the same.
        eventually(lambda: len(listener.heard("WATCHDOG")) > 2)
        assert manager.stop() == 0
    assert listener.heard("READY") == ["1"]
    assert listener.heard("STOPPING") == ["1"]
    assert listener.messages[0] == {"READY": "1"}
    assert listener.heard("STATUS")[0] == "0 files waiting, 0 on their way, 0 in trouble"


def test_a_manager_at_work_beats_and_its_children_have_no_part_in_it(
    sites: Sites, listener: Listener
) -> None:
    general = {"bandwidth": "500kB/s", "num_threads": 1}
    sites.write_config(endpoint={"transfer": "rsync"}, general=general)
    write_file(sites.buffer, b"big.fits", os.urandom(2_000_000))
    with Run(sites, env=listener.environment) as manager:
        eventually(lambda: counts(sites) == {"sending": 1})
        beats = len(listener.heard("WATCHDOG"))
        eventually(lambda: "rsync" in descendants(manager.process))
        children = [child for group in descendants(manager.process).values() for child in group]
        told = {name for child in children for name in _environment(child)}
        eventually(lambda: len(listener.heard("WATCHDOG")) > beats + 1)
        eventually(lambda: counts(sites) == {"held": 1}, within=40)
    assert told.isdisjoint({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
    assert "PATH" in told


def test_a_manager_that_hangs_does_not_beat(sites: Sites, listener: Listener) -> None:
    sites.write_config()
    with Run(sites, env=listener.environment) as manager:
        eventually(lambda: listener.heard("WATCHDOG"))
        os.kill(manager.process.pid, signal.SIGSTOP)
        eventually(lambda: psutil.Process(manager.process.pid).status() == psutil.STATUS_STOPPED)
        beats = len(listener.heard("WATCHDOG"))
        time.sleep(2.5)
        assert len(listener.heard("WATCHDOG")) == beats
        os.kill(manager.process.pid, signal.SIGCONT)
        eventually(lambda: len(listener.heard("WATCHDOG")) > beats)


def test_a_manager_that_waits_for_its_ledger_beats_and_says_why(sites: Sites, listener: Listener) -> None:
    sites.write_config()
    with Run(sites, env=listener.environment):
        eventually(lambda: listener.heard("WATCHDOG"))
        with closing(sqlite3.connect(sites.ledger, isolation_level=None, timeout=10)) as another:
            another.execute("BEGIN IMMEDIATE")
            write_file(sites.buffer, b"a.fits", b"a")
            eventually(lambda: any(said.startswith("all work waits: ") for said in listener.heard("STATUS")))
            beats = len(listener.heard("WATCHDOG"))
            eventually(lambda: len(listener.heard("WATCHDOG")) > beats + 2)
        eventually(lambda: counts(sites) == {"held": 1})


def test_the_journal_is_told_how_important_each_line_is(sites: Sites) -> None:
    sites.write_config()
    sites.output.touch()
    status = sites.output.stat()
    journal = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    with Run(sites, env=journal) as manager:
        eventually(lambda: "started: " in manager.said)
        sites.config.write_text("general: [")
        os.kill(manager.process.pid, signal.SIGHUP)
        eventually(lambda: "stays in force" in manager.said)
        assert manager.stop() == 0
    with Run(sites, env=journal) as manager:
        assert manager.process.wait(20) == 10
    lines = manager.said.splitlines()
    # Of what can't be used there are two lines without a level: the problem, and what to do.
    priorities = [(line[:3], re.findall(r":(INFO|WARNING|ERROR):", line)) for line in lines]
    of_level = {"<6>": ["INFO"], "<4>": ["WARNING"], "<3>": ["ERROR"]}
    assert [(number, level) for number, level in priorities[:-2] if of_level.get(number) != level] == []
    assert priorities[-2:] == [("<3>", [])] * 2
    with Run(sites, env={"JOURNAL_STREAM": "1:1"}) as manager:
        assert manager.process.wait(20) == 10
    assert "<3>" not in "".join(manager.said.splitlines()[len(lines) :])


def test_a_daemon_does_not_speak_for_the_service_that_started_it(sites: Sites, listener: Listener) -> None:
    config = sites.write_config()
    assert sites.command("start", config, "--daemon", "--quiet", env=listener.environment).exit_code == 0
    assert sites.command("stop", config).exit_code == 0
    assert listener.heard("READY") == []
    assert listener.messages == []


@pytest.mark.parametrize("drop_in", [None, *range(len(_DROP_INS))])
@pytest.mark.parametrize("unit", _UNITS.values(), ids=_UNITS)
def test_systemd_takes_the_units_with_every_drop_in_of_the_docs(
    tmp_path: Path, unit: str, drop_in: int | None
) -> None:
    done = _verified(tmp_path, unit, None if drop_in is None else _DROP_INS[drop_in])
    assert (done.exit_code, done.stderr.decode()) == (0, "")


def test_what_systemd_does_not_know_in_a_unit_is_told(tmp_path: Path) -> None:
    done = _verified(tmp_path, _UNITS["handoff"], "[Service]\nWatchdogSecs=1\n")
    assert "WatchdogSecs" in done.stderr.decode()


def test_the_commands_of_the_unit_start_reload_and_stop_a_manager(
    managed: Sites | Archive, listener: Listener
) -> None:
    def command(key: str, pid: int = 0) -> list[str]:
        text = (REPOSITORY / _UNITS[managed.kind]).read_text()
        line = text.partition(f"\n{key}=")[2].partition("\n")[0].removeprefix("-")
        line = re.sub(r"/usr/local/bin/\w+", f"{sys.executable} -m {managed.kind}", line)
        return line.replace("/etc/dbb/%i.yaml", str(managed.config)).replace("$MAINPID", str(pid)).split()

    with Background(command("ExecStart"), env=listener.environment, cwd=REPOSITORY) as manager:
        eventually(lambda: listener.heard("READY"))
        managed.write_config(general={"num_threads": 1})
        assert run(command("ExecReload", manager.pid)).exit_code == 0
        eventually(lambda: len(listener.heard("READY")) > 1)
        assert run(command("ExecStop"), cwd=REPOSITORY).exit_code == 0
        assert manager.wait(10) == 0
    assert listener.heard("STOPPING") == ["1"]
    told = [name for message in listener.messages for name in message if name not in ("WATCHDOG", "STATUS")]
    assert told == ["READY", "RELOADING", "MONOTONIC_USEC", "READY", "STOPPING"]


def test_a_service_whose_new_configuration_is_refused_is_ready_again(
    sites: Sites, listener: Listener
) -> None:
    sites.write_config()
    with Run(sites, env=listener.environment) as manager:
        eventually(lambda: listener.heard("READY"))
        sites.config.write_text("general: [")
        os.kill(manager.process.pid, signal.SIGHUP)
        eventually(lambda: len(listener.heard("READY")) > 1)
    assert len(listener.heard("RELOADING")) == 1


def _verified(directory: Path, unit: str, drop_in: str | None) -> Completed:
    """What systemd says of an instance of the unit, whose programs are those of this checkout."""
    text = (REPOSITORY / unit).read_text().replace("/usr/local/bin/", f"{Path(sys.executable).parent}/")
    instance = Path(unit).name.replace("@", "@summit")
    (directory / Path(unit).name).write_text(text)
    if drop_in is not None:
        (directory / f"{instance}.d").mkdir()
        (directory / f"{instance}.d" / "override.conf").write_text(drop_in)
    verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no"]
    return run([*verify, str(directory / instance)], timeout=30)


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.NoSuchProcess:
        return {}
