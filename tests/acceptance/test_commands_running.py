"""What an operator types, and what comes of it, while a manager runs."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.ledger.lock import holder
from common.process import Background, Completed
from tests.archive import Archive
from tests.loopback import Sites, Sshd, files_below, write_file
from tests.runs import Run, eventually, rows

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def _told(done: Completed) -> tuple[int, str, str]:
    return done.exit_code, done.stdout.decode(), done.stderr.decode()


def _wait_for(what: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def _status(sites: Sites | Archive) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(sites.command("status", sites.config, "--json").stdout)
    return told


def _states(sites: Sites) -> dict[str, int]:
    counts = _status(sites)["states"]
    return {state: count["files"] for state, count in counts.items() if count["files"]}


@pytest.fixture
def daemon(sites: Sites) -> Iterator[int]:
    """A manager that was started in the background; its process number."""
    done = sites.command("start", sites.write_config(), "--daemon", "--quiet")
    assert _told(done) == (0, "", "")
    pid = holder(sites.ledger)
    assert pid is not None
    process = psutil.Process(pid)
    yield pid
    if process.is_running():
        process.terminate()
        process.wait(20)


def test_status_tells_that_the_buffer_is_gone(managed: Sites | Archive) -> None:
    with Run(managed) as manager:
        eventually(lambda: rows(managed, "SELECT * FROM manager"))
        managed.buffer.rmdir()
        eventually(lambda: f"{managed.buffer} is not there" in _status(managed)["manager"]["paused"])
        managed.buffer.mkdir()
        eventually(lambda: not _status(managed)["manager"]["paused"])
        assert manager.stop() == 0


# start --daemon


def test_a_daemon_is_up_when_start_returns_and_has_left_the_terminal(sites: Sites, daemon: int) -> None:
    process = psutil.Process(daemon)
    assert process.terminal() is None
    assert os.getsid(daemon) not in (os.getsid(0), daemon)
    told = _status(sites)["manager"]
    assert (told["running"], told["pid"]) == (True, daemon)
    assert "started" in sites.ledger.with_suffix(".log").read_text()


def test_a_daemon_says_where_its_messages_go(sites: Sites) -> None:
    log = sites.directory / "messages.log"
    config = sites.write_config(logging={"file": str(log)})
    code, out, err = _told(sites.command("start", config, "--daemon"))
    pid = holder(sites.ledger)
    assert (code, out, err) == (0, f"hdfmgr is up, process {pid}; its messages go to {log}\n", "")
    assert sites.command("stop", config).exit_code == 0
    assert "stopped" in log.read_text()


def test_a_daemon_whose_log_cannot_be_written_says_where_its_messages_are(sites: Sites) -> None:
    log = sites.directory / "nowhere" / "messages.log"
    config = sites.write_config(logging={"file": str(log)})
    code, out, err = _told(sites.command("start", config, "--daemon"))
    beside = sites.ledger.with_suffix(".log")
    assert (code, out.endswith(f"its messages go to {beside}\n")) == (0, True)
    assert err == (
        f"hdfmgr: {log} can't be written: there is no directory {log.parent}\n"
        f"  hint: its messages go to {beside} until it can\n"
    )
    assert sites.command("stop", config).exit_code == 0
    assert "the log file can't be written" in beside.read_text()
    assert "stopped" in beside.read_text()
    assert not log.parent.exists()


def test_a_daemon_whose_log_is_removed_goes_on_beside_the_ledger(sites: Sites) -> None:
    logs = sites.directory / "logs"
    logs.mkdir()
    config = sites.write_config(logging={"file": str(logs / "messages.log")})
    assert sites.command("start", config, "--daemon", "--quiet").exit_code == 0
    shutil.rmtree(logs)
    assert sites.command("stop", config).exit_code == 0
    beside = sites.ledger.with_suffix(".log").read_text()
    assert "the log file can't be written" in beside
    assert beside.endswith("stopped\n")


def test_a_daemon_that_does_not_come_up_is_told_where_it_was_called(sites: Sites) -> None:
    config = sites.write_config()
    sites.holding.rmdir()
    code, out, err = _told(sites.command("start", config, "--daemon", "--quiet"))
    assert (code, out) == (1, "")
    assert "hdfmgr: handoff.holding: " in err
    assert "  hint: " in err
    assert holder(sites.ledger) is None


@pytest.mark.parametrize("flags", [(), ("--daemon",), ("--daemon", "--quiet")])
def test_a_start_with_what_is_no_ledger_is_exit_11(sites: Sites, flags: tuple[str, ...]) -> None:
    config = sites.write_config()
    sites.ledger.write_bytes(b"not a database, by any means" * 100)
    code, out, err = _told(sites.command("start", config, *flags))
    assert (code, out) == (11, "")
    assert re.match(r"hdfmgr: .* is no ledger.*\n  hint: ", err)
    assert sites.ledger.read_bytes() == b"not a database, by any means" * 100


def test_a_second_start_says_who_is_running_and_succeeds(sites: Sites, daemon: int) -> None:
    for flag in ("--daemon", "--live"):
        code, out, err = _told(sites.command("start", sites.config, flag))
        assert (code, err) == (0, "")
        assert re.fullmatch(rf"hdfmgr is running already \(process {daemon}, since \S+ \S+\)\n", out)
    for args in (("--daemon", "--quiet"), ("--once", "--quiet")):
        assert _told(sites.command("start", sites.config, *args)) == (0, "", "")


# start in the foreground


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_manager_in_the_foreground_ends_at_a_signal(sites: Sites, number: signal.Signals) -> None:
    with sites.start("start", sites.write_config()) as manager:
        _wait_for(lambda: holder(sites.ledger))
        _wait_for(lambda: "started" in sites.output.read_text())
        os.kill(manager.pid, number)
        assert manager.wait(15) == 0
    assert "stopped" in sites.output.read_text()


def test_once_works_until_nothing_is_left(sites: Sites) -> None:
    write_file(sites.buffer, b"night/a.fits", b"a")
    write_file(sites.buffer, b"night/b \xff.fits", b"b")
    code, out, _ = _told(sites.command("start", sites.write_config(), "--once"))
    assert (code, out) == (0, "")
    assert _states(sites) == {"held": 2}


def test_once_quiet_prints_nothing(sites: Sites) -> None:
    write_file(sites.buffer, b"a.fits", b"a")
    assert _told(sites.command("start", sites.write_config(), "--once", "--quiet")) == (0, "", "")


def test_once_with_a_conflict_left_is_exit_3(sites: Sites) -> None:
    write_file(sites.buffer, b"a.fits", b"mine")
    write_file(sites.endpoint_buffer, b"a.fits", b"another's")
    assert sites.command("start", sites.write_config(), "--once").exit_code == 3
    assert _states(sites) == {"conflict": 1}


# The live table


def _on_a_terminal(sites: Sites, *args: str | Path, output: Path) -> Background:
    """Run a command on a terminal of its own; what it draws goes into `output`."""
    command = " ".join(map(str, sites._argv(args)))
    argv = ["script", "-qefc", f"stty cols 100 rows 50; exec {command}", "/dev/null"]
    environment = {"TERM": "xterm-256color", "COLUMNS": "", "LINES": ""}
    return Background(argv, env=environment, output=output, cwd=Path(__file__).parent.parent.parent)


def test_live_shows_the_table_below_the_messages(sites: Sites, tmp_path: Path) -> None:
    config = sites.write_config()
    drawn = tmp_path / "drawn"
    write_file(sites.buffer, b"a.fits", b"x" * 100_000)
    with _on_a_terminal(sites, "start", config, "--live", output=drawn) as terminal:
        _wait_for(lambda: (sites.holding / "a.fits").exists())
        _wait_for(lambda: re.search(r"held +1 +100 kB", _ANSI.sub("", drawn.read_text())))
        assert sites.command("stop", config).exit_code == 0
        terminal.wait(10)
    text = _ANSI.sub("", drawn.read_text())
    assert re.search(r"hdfmgr +handoff +● running for", text)
    assert "INFO:started" in text
    assert re.search(r"● reachable for", text)
    # The last picture is of the end.
    last = text[text.rindex(" hdfmgr ") :]
    assert re.search(r"held +1 +100 kB", last)
    assert "● not running" in last


def test_live_shows_the_endpoint_of_another_configuration_once_that_is_taken(
    sites: Sites, tmp_path: Path
) -> None:
    config = sites.write_config()
    drawn = tmp_path / "drawn"
    with _on_a_terminal(sites, "start", config, "--live", output=drawn):
        _wait_for(lambda: re.search(r"endpoint +127\.0\.0\.1", _ANSI.sub("", drawn.read_text())))
        sites.write_config(endpoint={"host": "localhost"})
        pid = holder(sites.ledger)
        assert pid
        os.kill(pid, signal.SIGHUP)
        _wait_for(lambda: re.search(r"endpoint +localhost", _ANSI.sub("", drawn.read_text())))
        assert sites.command("stop", config).exit_code == 0


def test_live_off_a_terminal_tells_lines(sites: Sites) -> None:
    write_file(sites.buffer, b"a.fits", b"x" * 60_000)
    code, out, _ = _told(sites.command("start", sites.write_config(), "--once", "--live"))
    assert code == 0
    assert "\x1b" not in out
    assert out.splitlines()[-1] == "hdfmgr: held 1; 1.00 kB/s over 1m"


def test_watch_goes_on_until_it_is_interrupted(sites: Sites, daemon: int, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    with _on_a_terminal(sites, "status", sites.config, "--watch", output=drawn) as terminal:
        _wait_for(lambda: "● running for" in _ANSI.sub("", drawn.read_text()))
        write_file(sites.buffer, b"a.fits", b"x" * 1000)
        _wait_for(lambda: re.search(r"held +1 +1.00 kB", _ANSI.sub("", drawn.read_text())))
        (watcher,) = psutil.Process(terminal.pid).children(recursive=True)
        watcher.send_signal(signal.SIGINT)
        assert terminal.wait(10) == 0
    assert psutil.pid_exists(daemon)


def test_watch_in_json_is_one_object_a_line(sites: Sites, daemon: int, tmp_path: Path) -> None:
    with sites.start("status", sites.config, "--watch", "--json") as watcher:
        _wait_for(lambda: sites.output.read_text().count("\n") >= 2)
        os.kill(watcher.pid, signal.SIGINT)
        assert watcher.wait(10) == 0
    for line in sites.output.read_text().splitlines():
        assert json.loads(line)["manager"]["pid"] == daemon


# What can be asked and done while it runs


def test_status_of_a_running_manager_is_fresh(sites: Sites, daemon: int) -> None:
    write_file(sites.buffer, b"a.fits", b"x" * 1000)
    _wait_for(lambda: (sites.holding / "a.fits").exists())
    _wait_for(lambda: _states(sites) == {"held": 1})
    _wait_for(lambda: _status(sites)["endpoint"]["reachable"])
    told = _status(sites)
    assert told["manager"]["heartbeat_age_seconds"] < 20
    assert told["rates"]["1m"] == {"files": 1, "bytes": 1000}
    assert {"buffer", "holding", "ledger"} <= set(told["disk"])
    assert told["oldest_waiting_seconds"] is None


def test_a_conflict_is_told_and_retried_by_name_while_the_manager_runs(sites: Sites, daemon: int) -> None:
    other = write_file(sites.endpoint_buffer, b"a.fits", b"another's")
    write_file(sites.buffer, b"a.fits", b"mine")
    _wait_for(lambda: _states(sites) == {"conflict": 1})
    code, out, _ = _told(sites.command("history", sites.config, "a.fits"))
    assert code == 0
    assert "waits for  `hdfmgr retry`: " in out
    os.unlink(other)
    assert _told(sites.command("retry", sites.config, "a.fits")) == (0, "1 file to try again\n", "")
    _wait_for(lambda: _states(sites) == {"held": 1})
    assert files_below(sites.endpoint_buffer) == {b"a.fits": b"mine"}


def test_a_pause_is_told_with_its_reason_and_is_over_once_the_endpoint_answers(tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd") as sshd:
        sites = Sites(tmp_path / "sites", sshd)
        sites.write_config()
        write_file(sites.buffer, b"a.fits", b"a")
        sshd.stop()

        with sites.start("start", sites.config):
            _wait_for(lambda: sites.ledger.exists() and _status(sites)["manager"]["paused"])
            told = _status(sites)
            assert told["endpoint"]["reachable"] is False
            assert re.fullmatch(
                rf"connection refused: .* port {sshd.port}: .*; is sshd .*", told["manager"]["paused"]
            )
            story = json.loads(sites.command("history", sites.config, "a.fits", "--json").stdout)
            assert story["versions"][0]["waits_for"].startswith(
                "its turn to be taken on: hdfmgr is paused: connection refused: "
            )
            # There is nothing to be sent when it comes back.
            os.unlink(sites.buffer / "a.fits")
            sshd.start()
            _wait_for(lambda: _status(sites)["endpoint"]["reachable"])
            assert _status(sites)["manager"]["paused"] == ""


def test_stop_lets_what_is_in_flight_finish(sites: Sites) -> None:
    config = sites.write_config(general={"bandwidth": "2MB/s", "num_threads": 1})
    write_file(sites.buffer, b"big.fits", os.urandom(4_000_000))
    with sites.start("start", config) as manager:
        _wait_for(lambda: _states(sites) == {"sending": 1})
        code, out, _ = _told(sites.command("stop", config))
        assert code == 0
        assert f"hdfmgr (process {manager.pid}) finished what was in flight" in out
        assert manager.wait(20) == 0
    assert _states(sites) in ({"delivered": 1}, {"held": 1})


def test_stop_with_little_patience_gives_up_what_the_next_start_resumes(sites: Sites) -> None:
    config = sites.write_config(general={"bandwidth": "100kB/s", "num_threads": 1})
    write_file(sites.buffer, b"big.fits", os.urandom(4_000_000))
    with sites.start("start", config) as manager:
        _wait_for(lambda: _states(sites) == {"sending": 1})
        time.sleep(1)
        code, out, _ = _told(sites.command("stop", config, "--timeout", "0.5"))
        assert code == 0
        assert f"hdfmgr (process {manager.pid}) ended after " in out
        assert "is resumed at the next start" in out
    config = sites.write_config()
    assert sites.command("start", config, "--once").exit_code == 0
    assert _states(sites) == {"held": 1}


def test_a_killed_manager_is_told_as_not_running_and_started_again_by_cron(sites: Sites, daemon: int) -> None:
    process = psutil.Process(daemon)
    process.kill()
    process.wait(10)
    assert "● not running" in sites.command("status", sites.config).stdout.decode()
    assert _told(sites.command("start", sites.config, "--daemon", "--quiet")) == (0, "", "")
    again = holder(sites.ledger)
    assert again not in (None, daemon)
    assert sites.command("stop", sites.config).exit_code == 0
