"""Everything that can be killed is killed; every file arrives all the same, intact and once.

For more kills, or others: ``DBB_KILLS=2000 DBB_SEED=7 pytest tests/acceptance/test_kills.py``.
"""

import os
import random
import time
from collections import Counter
from contextlib import suppress
from typing import IO

import psutil
import pytest

from tests.loopback import Sites, files_below, write_file
from tests.runs import Run, assert_delivered_once, children, counts, descendants, eventually, stand_in

_CAMPAIGNS = 4
_KILLS = -(-int(os.environ.get("DBB_KILLS", "108")) // _CAMPAIGNS)
_SEED = int(os.environ.get("DBB_SEED", "1"))

_DIRECTORIES = (b"", b"night 1/", b"night 1/raw/", b"-n/$(touch x)/", b"new\nline/\xff\xfe/", b"it's/*/")
_NAMES = (b"plain", b"-rf ", b"two\nlines", b"'q\" ", b"$(reboot)", b"\xfe\xff", b"#", b";ls", b"back\\")
_ROLES = {"newborn": 1, "manager": 4, "worker": 2, "master": 2, "ssh": 3, "transfer": 3}
"""Who is killed, with weights; a newborn is a manager that has not got anywhere yet."""
_SIZES = (0, 1, 900, 20_000, 20_000, 20_000, 300_000, 3_000_000)


class Instrument:
    """Writes files as instruments do: in one go, slowly, or under another name until they are complete."""

    def __init__(self, sites: Sites, dice: random.Random) -> None:
        self.written: dict[bytes, bytes] = {}
        self.times: Counter[bytes] = Counter()
        """How often each file was put into the buffer."""
        self._sites, self._dice = sites, dice
        self._unfinished: list[tuple[IO[bytes], bytes]] = []

    def expose(self) -> None:
        """Write a few files, and go on with those that are written slowly."""
        self.finish()
        for _ in range(self._dice.randrange(1, 8)):
            name = self._dice.choice(_DIRECTORIES) + self._dice.choice(_NAMES)
            self._write(name + b"%d.fits" % len(self.written), self._content())

    def expose_big(self) -> None:
        """Write a file so big that it is hashed while it is sent."""
        self._write(b"big.fits", self._dice.randbytes(33 << 20))

    def repeat(self, path: bytes) -> None:
        """Write a file once more, with the same content."""
        self._write(path, self.written[path])

    def finish(self) -> None:
        """Write what is still unwritten of slow files."""
        for file, rest in self._unfinished:
            with file:
                file.write(rest)
        self._unfinished.clear()

    def _content(self) -> bytes:
        if self.written and self._dice.random() < 0.1:
            return self._dice.choice(list(self.written.values()))
        return self._dice.randbytes(self._dice.choice(_SIZES))

    def _write(self, path: bytes, content: bytes) -> None:
        self.written[path] = content
        self.times[path] += 1
        way = self._dice.choice(("at once", "slowly", "renamed"))
        if way == "at once":
            write_file(self._sites.buffer, path, content)
        elif way == "renamed":
            part = write_file(self._sites.buffer, path + b".tmp", content)
            os.rename(part, part.removesuffix(b".tmp"))
        else:
            half = len(content) // 2
            whole = os.path.join(os.fsencode(self._sites.buffer), path)
            os.makedirs(os.path.dirname(whole), exist_ok=True)
            file = open(whole, "wb", buffering=0)  # noqa: SIM115 - it stays open, as a slow writer's does
            file.write(content[:half])
            self._unfinished.append((file, content[half:]))


class Fate:
    """Kills the manager or one of its descendants, and starts the next manager as cron does."""

    def __init__(self, sites: Sites, dice: random.Random, transfer: str) -> None:
        self.killed: Counter[str] = Counter()
        self._sites, self._dice, self._transfer = sites, dice, transfer
        self._in_a_row = 0
        self._run = Run(sites)

    def strike(self) -> None:
        """Kill somebody; a manager is followed by the next one at once."""
        role = self._dice.choices([*_ROLES], [*_ROLES.values()])[0]
        if self._in_a_row == 3:
            # Over a file that a fourth child in a row dies over, the manager suspects the file.
            role = "manager"
        victims = self._lie_in_wait(role)
        time.sleep(self._dice.choice((0, 0.01, 0.1, 0.5)) * self._dice.random())
        if victims:
            with suppress(psutil.NoSuchProcess):
                self._dice.choice(victims).kill()
            self._in_a_row += 1
        else:
            role = "manager"
            self._kill_manager()
            self._in_a_row = 0
        self.killed[role] += 1

    def relent(self) -> int | None:
        """Kill nobody any more, and let the manager end once all that waits has been held."""
        with self._run:
            eventually(lambda: set(counts(self._sites)) == {"held"} and not files_below(self._sites.buffer))
            return self._run.stop()

    def _lie_in_wait(self, role: str) -> list[psutil.Process]:
        """Processes of a kind, once there are any; none if it takes too long."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and role != "newborn":
            found = descendants(self._run.process)
            name = self._transfer if role == "transfer" else role
            if name in found:
                return found[name]
            if role == "manager" and found:
                break
            time.sleep(0.002)
        return []

    def _kill_manager(self) -> None:
        orphans = [process for some in descendants(self._run.process).values() for process in some]
        if self._dice.random() < 0.25:
            # It may have begun to stop, or even have ended.
            self._run.stop(within=0.5 * self._dice.random())
        self._run.kill()
        if self._dice.random() < 0.5:
            self._run = Run(self._sites)
            _assert_gone(orphans)
        else:
            _assert_gone(orphans)
            self._run = Run(self._sites)


def _assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive


@pytest.mark.timeout(60 + 5 * _KILLS)
@pytest.mark.parametrize("seed", range(_SEED, _SEED + _CAMPAIGNS))
def test_every_file_arrives_once_and_intact_whoever_is_killed_and_when(sites: Sites, seed: int) -> None:
    dice = random.Random(seed)
    transfer = "rsync" if seed % _CAMPAIGNS else "scp"
    sites.write_config(endpoint={"transfer": transfer})
    instrument = Instrument(sites, dice)
    for _ in range(3):
        instrument.expose()
    instrument.finish()
    assert sites.command("start", sites.config, "--once").exit_code == 0
    before = iter(list(instrument.written))
    instrument.expose_big()
    fate = Fate(sites, dice, transfer)
    for number in range(_KILLS):
        instrument.expose()
        if number % 3 == 0 and (again := next(before, None)):
            instrument.repeat(again)
        fate.strike()
    instrument.finish()
    assert fate.relent() == 0, fate.killed
    # A program at the endpoint may outlive the manager that was killed here, and write into staging after
    # the next one has cleared it: the start after that clears it again.
    assert sites.command("start", sites.config, "--once").exit_code == 0
    assert_delivered_once(sites, instrument.written, instrument.times)


def test_what_escaped_the_death_of_its_manager_is_ended_by_the_next_one(sites: Sites) -> None:
    sites.write_config(endpoint={"transfer": "scp"})
    number = sites.directory / "pid"
    script = f'setsid sleep 1003 >/dev/null 2>&1 & echo $! >{number}; exec "$real" "$@"'
    write_file(sites.buffer, b"a.fits", b"light")
    with Run(sites, env=stand_in(sites.directory / "bin", "scp", script)) as manager:
        eventually(lambda: counts(sites) == {"held": 1})
        escaped = psutil.Process(int(number.read_text()))
        manager.kill()
    eventually(lambda: children(sites) == [escaped])
    with Run(sites) as manager:
        _assert_gone([escaped])
        eventually(
            lambda: "the manager before this one was killed; 1 processes of it were ended" in manager.said
        )
