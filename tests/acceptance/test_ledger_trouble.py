"""A manager whose ledger is locked, taken away or ruined, or whose clock is set."""

import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from common.process import Background
from tests.loopback import Sites, files_below, write_file
from tests.runs import Run, children, counts, eventually, leftovers, rows
from tests.troubles import STRAIGHT, assert_stops, carry_all, send_signal, status, story

_HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute(sys.argv[2])
connection.execute("SELECT count(*) FROM files").fetchall()
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def held(sites: Sites, begin: str) -> Iterator[None]:
    """Another process is within a transaction of its own."""
    sign = sites.directory / "sign"
    with Background([sys.executable, "-c", _HOLD, str(sites.ledger), begin], output=sign):
        eventually(lambda: sign.exists() and "held" in sign.read_text())
        yield
    sign.unlink()


def test_a_ledger_locked_by_another_writer_delays_and_loses_nothing(sites: Sites) -> None:
    sites.write_config(general={"bandwidth": "2MB/s", "num_threads": 1})
    content = {b"big.fits": bytes(4_000_000), b"small.fits": b"light"}
    write_file(sites.buffer, b"big.fits", content[b"big.fits"])
    with Run(sites) as manager:
        eventually(lambda: counts(sites) == {"sending": 1})
        with held(sites, "BEGIN IMMEDIATE"):
            write_file(sites.buffer, b"small.fits", content[b"small.fits"])
            eventually(lambda: b"big.fits" in files_below(sites.endpoint_buffer))
            eventually(lambda: "all work waits" in manager.said)
            time.sleep(6)
            told = status(sites)
            assert (told["manager"]["running"], told["states"]["sending"]["files"]) == (True, 1)
        eventually(lambda: counts(sites) == {"held": 2})
        eventually(lambda: "the ledger can be written again after" in manager.said)
        assert manager.said.count("all work waits") == 1
        assert manager.stop() == 0
    assert [story(sites, path) for path in sorted(content)] == [[STRAIGHT], [STRAIGHT]]
    assert files_below(sites.endpoint_buffer) == files_below(sites.holding) == content


def test_a_manager_ends_in_time_while_its_ledger_is_locked(sites: Sites) -> None:
    sites.write_config()
    write_file(sites.buffer, b"a.fits", b"a")
    with Run(sites) as manager:
        eventually(lambda: counts(sites) == {"held": 1})
        with held(sites, "BEGIN IMMEDIATE"):
            write_file(sites.buffer, b"b.fits", b"b")
            eventually(lambda: "all work waits" in manager.said)
            assert_stops(manager)
    assert not children(sites)
    assert not leftovers(sites)
    assert sites.command("start", sites.config, "--once").exit_code == 0
    assert story(sites, b"b.fits") == [STRAIGHT]


def test_the_second_interrupt_ends_a_manager_at_once_while_its_ledger_is_locked(sites: Sites) -> None:
    sites.write_config()
    with Run(sites) as manager:
        eventually(lambda: rows(sites, "SELECT pid FROM manager"))
        with held(sites, "BEGIN IMMEDIATE"):
            eventually(lambda: "all work waits" in manager.said)
            send_signal(manager, signal.SIGINT)
            time.sleep(0.2)
            send_signal(manager, signal.SIGINT)
            assert manager.process.wait(30) == 130
    assert not children(sites)


def test_a_slow_reader_of_the_ledger_delays_nothing(sites: Sites) -> None:
    sites.write_config()
    with Run(sites) as manager:
        eventually(lambda: rows(sites, "SELECT pid FROM manager"))
        with held(sites, "BEGIN"):
            for number in range(20):
                write_file(sites.buffer, b"%d.fits" % number, b"light")
            eventually(lambda: counts(sites) == {"held": 20})
        assert "waits" not in manager.said


def test_a_ledger_that_is_removed_ends_the_manager_and_the_next_one_finds_what_has_arrived(
    sites: Sites,
) -> None:
    sites.write_config()
    write_file(sites.buffer, b"a.fits", b"a")
    with Run(sites) as manager:
        eventually(lambda: counts(sites) == {"held": 1})
        for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
            sites.ledger.with_name(name).unlink()
        assert manager.process.wait(10) == 11
        assert "was removed or replaced" in manager.said
    write_file(sites.buffer, b"a.fits", b"a")
    write_file(sites.buffer, b"b.fits", b"b")
    assert sites.command("start", sites.config, "--once").exit_code == 0
    assert (
        files_below(sites.endpoint_buffer) == files_below(sites.holding) == {b"a.fits": b"a", b"b.fits": b"b"}
    )
    assert not files_below(sites.buffer)


def test_a_ruined_ledger_is_exit_11_with_a_hint_and_stays_as_it_is(sites: Sites) -> None:
    sites.write_config()
    write_file(sites.buffer, b"a.fits", b"a")
    assert sites.command("start", sites.config, "--once").exit_code == 0
    with closing(sqlite3.connect(sites.ledger)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(sites.ledger.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    sites.ledger.write_bytes(content)
    for verb in ("start", "status"):
        done = sites.command(verb, sites.config)
        assert done.exit_code == 11
        assert b"corrupt" in done.stderr
        assert b"hint: " in done.stderr
    assert sites.ledger.read_bytes() == content


def test_a_file_that_failed_while_the_clock_was_ahead_does_not_wait_for_that_time(sites: Sites) -> None:
    sites.write_config(general={"retry": {"most": "1s"}})
    write_file(sites.endpoint_buffer, b"night", b"a file where a directory has to be")
    write_file(sites.buffer, b"night/a.fits", b"a")
    assert carry_all(sites) == 3
    with closing(sqlite3.connect(sites.ledger)) as connection, connection:
        connection.execute("UPDATE files SET due_at = due_at + 365 * 86400000")
    (sites.endpoint_buffer / "night").unlink()
    with Run(sites):
        eventually(lambda: counts(sites) == {"held": 1})
