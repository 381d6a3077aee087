"""The road between the sites, and the sshd at its end, in every kind of trouble."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.loopback import Sites, Sshd, files_below, write_file
from tests.runs import Run, children, counts, eventually, leftovers
from tests.troubles import (
    STRAIGHT,
    assert_stops,
    attempts,
    carry_all,
    endpoint_state,
    send_signal,
    status,
    story,
)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """An sshd of one's own, to be stopped and re-keyed."""
    with Sshd(tmp_path / "sshd") as server:
        yield server


def write(sites: Sites, count: int, size: int = 1000, start: int = 0) -> dict[bytes, bytes]:
    """So many files in the buffer."""
    content = {b"night/%03d.fits" % number: os.urandom(size) for number in range(start, start + count)}
    for path, data in content.items():
        write_file(sites.buffer, path, data)
    return content


def assert_delivered(sites: Sites, content: dict[bytes, bytes], *, within: float = 30) -> None:
    """Every file is where it belongs, and none was charged with what was not its fault."""
    eventually(lambda: counts(sites) == {"held": len(content)}, within=within)
    assert files_below(sites.endpoint_buffer) == files_below(sites.holding) == content
    assert attempts(sites) == 0


def waits(manager: Run) -> list[str]:
    """What was said of deliveries that wait, as causes."""
    return re.findall(r"deliveries wait: ([^:]+):", manager.said)


def assert_nothing_is_left(sites: Sites) -> None:
    assert not children(sites)
    assert not [path for path in leftovers(sites) if path.parent == Path("/tmp")]


# sshd is away


def test_an_sshd_that_is_down_for_a_while_costs_one_message_and_no_attempt(sites: Sites, sshd: Sshd) -> None:
    sites.write_config()
    content = write(sites, 3)
    with Run(sites) as manager:
        eventually(lambda: counts(sites) == {"held": 3})
        sshd.stop(connections=True)
        content |= write(sites, 20, start=3)
        eventually(lambda: endpoint_state(sites) == "unreachable")
        time.sleep(4)
        told = status(sites)
        assert told["endpoint"]["reachable"] is False
        assert told["endpoint"]["since"] > told["manager"]["since"]
        assert "connection refused" in told["endpoint"]["reason"]
        assert told["states"]["found"]["files"] == 20
        sshd.start()
        assert_delivered(sites, content)
        assert waits(manager) == ["connection refused"]
        assert manager.said.count("deliveries go on after") == 1
        # The ledger hears of it with the next heartbeat.
        eventually(lambda: status(sites)["endpoint"]["reachable"] is True)
        assert_stops(manager)
    assert_nothing_is_left(sites)


def test_an_sshd_that_is_down_from_the_start_is_waited_for(sites: Sites, sshd: Sshd) -> None:
    sites.write_config()
    content = write(sites, 3)
    sshd.stop()
    with Run(sites) as manager:
        eventually(lambda: waits(manager) == ["connection refused"])
        assert endpoint_state(sites) in ("unknown", "unreachable")
        sshd.start()
        assert_delivered(sites, content)
        assert waits(manager) == ["connection refused"]


def test_once_gives_up_on_an_sshd_that_is_down(sites: Sites, sshd: Sshd) -> None:
    sites.write_config()
    write(sites, 2)
    sshd.stop()
    assert carry_all(sites) == 3
    assert counts(sites) == {"found": 2}
    assert_nothing_is_left(sites)


def test_a_connection_that_is_cut_midway_costs_no_attempt(sites: Sites, sshd: Sshd) -> None:
    sites.write_config(general={"bandwidth": "8MB/s", "num_threads": 2})
    content = write(sites, 2, 8_000_000)
    with Run(sites) as manager:
        eventually(lambda: any(sites.staging.glob("batch-*/night/*")))
        for _ in range(8):
            time.sleep(0.25)
            for process in sshd.sessions():
                with suppress(psutil.NoSuchProcess):
                    # What it runs may still tell of its own end, if that is killed first.
                    if process.name() == "sshd":
                        process.kill()
        assert counts(sites).keys() <= {"found", "sending"}
        assert_delivered(sites, content, within=60)
        assert set(waits(manager)) <= {"connection lost", "connection closed before login"}
        assert_stops(manager)
    assert sorted(os.listdir(sites.staging)) == [".notes", ".receipts"]
    assert_nothing_is_left(sites)


# sshd accepts and hangs


def test_an_sshd_that_hangs_is_told_and_work_goes_on_when_it_answers(sites: Sites, sshd: Sshd) -> None:
    ssh = sshd.ssh_section()
    ssh["options"]["ConnectTimeout"] = "2"
    sites.write_config(endpoint={"ssh": ssh})
    sshd.pause()
    content = write(sites, 3)
    with Run(sites) as manager:
        eventually(lambda: waits(manager) == ["ssh does not answer"])
        sshd.resume()
        assert_delivered(sites, content)


def test_a_session_that_hangs_midway_is_killed_after_stall_timeout(sites: Sites, sshd: Sshd) -> None:
    sites.write_config(general={"bandwidth": "4MB/s", "num_threads": 1, "stall_timeout": "2s"})
    content = write(sites, 1, 8_000_000)
    with Run(sites) as manager:
        eventually(lambda: any(sites.staging.glob("batch-*/night/*")))
        sshd.pause(connections=True)
        eventually(lambda: waits(manager) == ["connection stalled"])
        assert not [process for process in children(sites) if process.name() == "rsync"]
        sshd.resume()
        assert_delivered(sites, content, within=60)
        assert_stops(manager)
    assert_nothing_is_left(sites)


def test_a_transfer_over_its_time_limit_is_killed_and_told(sites: Sites) -> None:
    sites.write_config(general={"bandwidth": "1MB/s", "num_threads": 1, "timeout": "1s"})
    write(sites, 1, 8_000_000)
    with Run(sites) as manager:
        eventually(lambda: counts(sites) == {"failed": 1})
        assert "no end after 1 s; raise general.timeout" in manager.said
        eventually(lambda: not any(sites.staging.glob("batch-*")))
        assert not [process for process in children(sites) if process.name() == "rsync"]


# Stopping, whatever hangs


def _while_down(sites: Sites, sshd: Sshd, manager: Run) -> None:
    sshd.stop(connections=True)
    write(sites, 3)
    eventually(lambda: waits(manager))


def _while_logins_hang(sites: Sites, sshd: Sshd, manager: Run) -> None:
    sshd.stop(connections=True)
    sshd.start()
    sshd.pause()
    write(sites, 3)
    time.sleep(1)


def _while_transfers_hang(sites: Sites, sshd: Sshd, manager: Run) -> None:
    write(sites, 2, 8_000_000)
    eventually(lambda: any(sites.staging.glob("batch-*/night/*")))
    sshd.pause(connections=True)
    time.sleep(0.5)


def _while_visits_hang(sites: Sites, sshd: Sshd, manager: Run) -> None:
    sshd.pause(connections=True)
    write(sites, 3)
    time.sleep(1)


def write_patient_config(sites: Sites, sshd: Sshd) -> None:
    """With which nothing that hangs is given up while a test lasts."""
    ssh = sshd.ssh_section()
    ssh["options"]["ConnectTimeout"] = "100"
    sites.write_config(general={"bandwidth": "4MB/s"}, endpoint={"ssh": ssh})


STATES = [_while_down, _while_logins_hang, _while_transfers_hang, _while_visits_hang]
Trouble = Callable[[Sites, Sshd, Run], None]


@pytest.mark.parametrize("trouble", STATES)
def test_a_stop_takes_seconds_whatever_hangs(sites: Sites, sshd: Sshd, trouble: Trouble) -> None:
    write_patient_config(sites, sshd)
    with Run(sites) as manager:
        eventually(lambda: endpoint_state(sites) == "reachable")
        trouble(sites, sshd, manager)
        assert_stops(manager)
        assert_nothing_is_left(sites)
        sshd.resume()


def test_the_command_to_stop_waits_its_time_for_what_hangs_and_then_gives_it_up(
    sites: Sites, sshd: Sshd
) -> None:
    write_patient_config(sites, sshd)
    with Run(sites) as manager:
        eventually(lambda: endpoint_state(sites) == "reachable")
        _while_transfers_hang(sites, sshd, manager)
        began = time.monotonic()
        assert sites.command("stop", sites.config, "--timeout", "2", timeout=30).exit_code == 0
        assert time.monotonic() - began > 2
        assert manager.process.wait(10) == 0
        assert_nothing_is_left(sites)
        sshd.resume()


@pytest.mark.parametrize("trouble", STATES)
def test_the_second_interrupt_ends_it_at_once_whatever_hangs(
    sites: Sites, sshd: Sshd, trouble: Trouble
) -> None:
    write_patient_config(sites, sshd)
    with Run(sites) as manager:
        eventually(lambda: endpoint_state(sites) == "reachable")
        trouble(sites, sshd, manager)
        send_signal(manager, signal.SIGINT)
        time.sleep(0.3)
        send_signal(manager, signal.SIGINT)
        # After one alone it would give up what hangs within seconds, and its exit code would be 0.
        code = manager.process.wait(30)
        # With nothing in flight it may have ended already.
        assert code == 130 or (code in (0, -signal.SIGINT) and trouble is _while_down)
        assert_nothing_is_left(sites)
        sshd.resume()


# Keys


def _bad_key(sites: Sites, sshd: Sshd) -> tuple[str, Callable[[], None]]:
    keys = sshd.directory / "authorized_keys"
    good = keys.read_text()
    keys.write_text("")

    def mend() -> None:
        keys.write_text(good)

    return "permission denied", mend


def _unknown_host_key(sites: Sites, sshd: Sshd) -> tuple[str, Callable[[], None]]:
    sshd.known_hosts.write_text("")
    return "host key unknown", sshd.announce_host_key


def _changed_host_key(sites: Sites, sshd: Sshd) -> tuple[str, Callable[[], None]]:
    sshd.stop(connections=True)
    sshd.renew_host_key()
    sshd.start()
    return "host key changed", sshd.announce_host_key


HINTS = {
    "permission denied": "is its public key authorized there?",
    "host key unknown": "log in by hand once, or use ssh-keyscan and compare",
    "host key changed": "if the endpoint was re-installed, remove its old key with ssh-keygen -R",
}


@pytest.mark.parametrize("spoil", [_bad_key, _unknown_host_key, _changed_host_key])
def test_a_key_that_does_not_fit_keeps_the_door_shut_until_it_is_mended(
    sites: Sites, sshd: Sshd, spoil: Callable[[Sites, Sshd], tuple[str, Callable[[], None]]]
) -> None:
    sites.write_config()
    with Run(sites) as manager:
        eventually(lambda: endpoint_state(sites) == "reachable")
        cause, mend = spoil(sites, sshd)
        sshd.stop(connections=True)
        sshd.start()
        content = write(sites, 3)
        eventually(lambda: cause in waits(manager))
        eventually(lambda: endpoint_state(sites) == "unreachable")
        time.sleep(3)
        assert waits(manager).count(cause) == 1
        assert HINTS[cause] in manager.said
        assert not files_below(sites.endpoint_buffer)
        told = status(sites)["endpoint"]
        assert told["reachable"] is False
        assert cause in told["reason"]
        mend()
        assert_delivered(sites, content)


# What else sshd and the account there do


def test_sixteen_workers_stay_within_the_limits_of_sshd(sites: Sites, sshd: Sshd) -> None:
    """Ten connections at once may be unauthenticated by default; from there on sshd drops some."""
    sites.write_config(general={"num_threads": 16, "chunk_size": 2})
    content = write(sites, 200)
    with Run(sites) as manager:
        assert_delivered(sites, content)
        assert "MaxStartups" not in sshd.log.read_text()
        assert waits(manager) == []


NOISE = b"Welcome!\n\0\xff <dbb-0> \nYour quota is 97% used.\r\n" * 50


def test_a_login_shell_that_prints_does_no_harm(tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd", noise=NOISE) as server:
        sites = Sites(tmp_path / "sites", server)
        sites.write_config()
        content = write(sites, 3)
        with Run(sites) as manager:
            assert_delivered(sites, content)
            assert waits(manager) == []


def test_a_login_shell_that_prints_has_rsync_wait_until_it_is_mended(tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd", noise=NOISE) as server:
        sites = Sites(tmp_path / "sites", server)
        sites.write_config(endpoint={"transfer": "rsync"})
        write(sites, 3)
        with Run(sites) as manager:
            eventually(lambda: waits(manager) or counts(sites) == {"held": 3})
            assert waits(manager) == ["login shell prints"]
            assert attempts(sites) == 0
            (server.directory / "noise").write_bytes(b"")
            eventually(lambda: counts(sites) == {"held": 3})
            assert [story(sites, b"night/%03d.fits" % n)[0][-4:] for n in range(3)] == [STRAIGHT[1:]] * 3


def test_after_an_outage_poison_files_hold_up_nobody(sites: Sites, sshd: Sshd) -> None:
    sites.write_config(general={"settle": 0, "retry": {"attempts": 50, "first": "0.2s", "most": "0.5s"}})
    poison = {b"bad%d" % number: b"bad" for number in range(20)}
    for path in poison:
        (sites.endpoint_buffer / os.fsdecode(path)).mkdir()
        write_file(sites.buffer, path, b"bad")
    with Run(sites) as manager:
        eventually(lambda: counts(sites) == {"failed": len(poison)})
        sshd.stop(connections=True)
        good = write(sites, 5)
        eventually(lambda: endpoint_state(sites) == "unreachable")
        sshd.start()
        eventually(lambda: files_below(sites.endpoint_buffer) == good, within=15)
        eventually(lambda: "deliveries go on" in manager.said)
        assert manager.stop() == 0
