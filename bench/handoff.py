"""The handoff manager beside rsync, rclone and scp, by an sshd on loopback: ``python -m bench.handoff``.

Every program carries the same tree to the same sshd, one after the other in turn, each time into an
empty directory. The manager's time holds all that it does: start, hashing, verifying at rest, the
ledger, flushing to the disk and moving to the holding area. The others only copy.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.loopback import Sites, Sshd

MB = 1_000_000
_PAUSE = 1.1
"""Seconds before each program. The manager's files must have settled by then, and meanwhile a virtual machine
gives the memory that was freed last back to its host: what begins at once still has it, and needs up to a
fifth less time (rsync with 64 files of 8 MB, measured)."""


@dataclass(frozen=True, slots=True)
class Load:
    """A tree of files to carry."""

    name: str
    files: int
    bytes: int
    """Of each file."""
    directories: int = 10


LOADS = {
    "S": Load("S", 2000, 20_000),
    "M": Load("M", 64, 8 * MB),
    "L": Load("L", 1, 2000 * MB, directories=1),
}
PROGRAMS = ("manager", "rsync", "scp", "rclone")


class Arena:
    """Two sites on one machine, and the programs that carry a tree from one to the other."""

    def __init__(self, directory: Path, sshd: Sshd) -> None:
        self._directory = directory
        self._sshd = sshd
        self._runs = 0
        self.manager_pid = 0
        config = directory / "ssh_config"
        options = "".join(f"  {key} {value}\n" for key, value in _options(sshd).items())
        config.write_text(f"Host *\n  Port {sshd.port}\n  IdentityFile {sshd.identity}\n{options}")
        self._ssh = f"ssh -F {config}"
        self._ssh_config = config

    def source(self, load: Load) -> Path:
        """A fresh tree, settled and in the page cache."""
        root = self._directory / f"source-{load.name}"
        if not root.exists():
            chunk = os.urandom(1 << 20)
            for number in range(load.files):
                directory = root / f"night-{number % load.directories:02d}"
                directory.mkdir(parents=True, exist_ok=True)
                with open(directory / f"image-{number:05d}.fits", "wb") as file:
                    left = load.bytes
                    file.write(number.to_bytes(8))
                    left -= 8
                    while left > 0:
                        left -= file.write(chunk[: min(left, len(chunk))])
        return root

    def manager(self, load: Load, **general: object) -> float:
        """Carry the tree with `hdfmgr start --once`; the time of the whole process."""
        with self._sites(load) as sites:
            sites.write_config(general={"min_free": 0, **general})
            time.sleep(_PAUSE)
            began = time.perf_counter()
            done = sites.command("start", sites.config, "--once", "--quiet", timeout=600)
            seconds = time.perf_counter() - began
            assert done.exit_code == 0, done.stderr.decode()
            assert sum(path.is_file() for path in sites.holding.rglob("*")) == load.files
            assert sum(path.is_file() for path in sites.endpoint_buffer.rglob("*")) == load.files
        return seconds

    def rsync(self, load: Load) -> float:
        return self._copy(
            load,
            lambda source, target: self.rsync_argv(Path(f"{source}/."), target),
        )

    def scp(self, load: Load) -> float:
        return self._copy(
            load,
            lambda source, target: [
                "scp",
                "-rpq",
                "-F",
                str(self._ssh_config),
                str(source),
                f"127.0.0.1:{target}/",
            ],
        )

    def rclone(self, load: Load) -> float:
        remote = (
            f":sftp,host=127.0.0.1,port={self._sshd.port},user={psutil.Process().username()},"
            f"key_file={self._sshd.identity},known_hosts_file={self._sshd.known_hosts},shell_type=unix"
        )
        return self._copy(
            load,
            lambda source, target: [
                "rclone",
                "--config",
                "/dev/null",
                "copy",
                str(source),
                f"{remote}:{target}",
            ],
        )

    def rsync_argv(self, source: Path, target: Path) -> list[str]:
        return ["rsync", "-a", "-e", self._ssh, str(source), f"127.0.0.1:{target}/"]

    @contextmanager
    def running(self, *, before: Callable[[Path], None] | None = None, **general: object) -> Iterator[Sites]:
        """Two sites with a manager that runs; `before` fills the buffer."""
        self._runs += 1
        directory = self._directory / f"run-{self._runs}"
        sites = Sites(directory, self._sshd)
        sites.write_config(general={"min_free": 0, **general})
        if before:
            before(sites.buffer)
        manager = sites.start("start", sites.config, "--quiet")
        self.manager_pid = manager.pid
        try:
            time.sleep(0 if before else 2)
            yield sites
        finally:
            manager.close(10)
            shutil.rmtree(directory)

    @contextmanager
    def _sites(self, load: Load) -> Iterator[Sites]:
        """Two sites with the tree in the buffer, by hard links: copies would crowd the page cache."""
        self._runs += 1
        directory = self._directory / f"run-{self._runs}"
        sites = Sites(directory, self._sshd)
        shutil.copytree(self.source(load), sites.buffer, dirs_exist_ok=True, copy_function=os.link)
        os.sync()
        try:
            yield sites
        finally:
            shutil.rmtree(directory)

    def _copy(self, load: Load, argv: Callable[[Path, Path], Sequence[str]]) -> float:
        source = self.source(load)
        target = self._directory / "target"
        target.mkdir()
        os.sync()
        time.sleep(_PAUSE)
        began = time.perf_counter()
        subprocess.run(argv(source, target), check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        assert sum(path.is_file() for path in target.rglob("*")) == load.files
        shutil.rmtree(target)
        return seconds


def trickle(arena: Arena, files: int = 20, size: int = 8 * MB) -> str:
    """One file a second: from its close to its name at the endpoint, beside an rsync at each close."""
    content = os.urandom(size)
    with arena.running(settle=0) as sites:
        ours = [_appearance(sites.buffer, sites.endpoint_buffer, f"live-{n}", content) for n in range(files)]
    with arena.running(settle=0) as sites:
        source, target = sites.directory / "source", sites.directory / "target"
        source.mkdir()
        target.mkdir()
        theirs = []
        for number in range(files):
            path = source / f"live-{number}"
            path.write_bytes(content)
            began = time.perf_counter()
            subprocess.run(arena.rsync_argv(path, target), check=True)
            theirs.append(time.perf_counter() - began)
            time.sleep(max(0.0, 1.0 - theirs[-1]))
    rows = [("manager", ours), ("rsync at each close", theirs)]
    lines = [
        f"### Trickle: one file of {size:,} bytes a second, {files} of them",
        "",
        "| program | median s | max s | to rsync |",
        "|---|---|---|---|",
    ]
    base = statistics.median(theirs)
    for name, seconds in rows:
        median = statistics.median(seconds)
        lines.append(f"| {name} | {median:.3f} | {max(seconds):.3f} | {median / base:.2f} |")
    return "\n".join(lines)


def _appearance(buffer: Path, target: Path, name: str, content: bytes) -> float:
    """Write a file, and wait for it at the other end; the rest of the second is slept."""
    (buffer / name).write_bytes(content)
    closed = time.perf_counter()
    while not (target / name).exists():
        time.sleep(0.001)
        assert time.perf_counter() < closed + 30, f"{name} does not arrive"
    seconds = time.perf_counter() - closed
    time.sleep(max(0.0, 1.0 - seconds))
    return seconds


def scale(arena: Arena, files: int = 100_000) -> str:
    """The memory of all our processes while so many files wait, and what they cost once they are held."""
    with arena.running(before=lambda buffer: _many(buffer, files)) as sites:
        manager = psutil.Process(arena.manager_pid)
        began, peak = time.perf_counter(), 0
        while _count(sites.holding) < files:
            family = [manager, *manager.children(recursive=True)]
            peak = max(peak, sum(_resident(process) for process in family))
            time.sleep(0.5)
            assert time.perf_counter() < began + 1800
        seconds = time.perf_counter() - began
        time.sleep(5)
        before, span = _processor_time(manager), 20.0
        time.sleep(span)
        idle = (_processor_time(manager) - before) / span
    return "\n".join(
        [
            f"### Scale: {files:,} files of 100 bytes in 100 directories",
            "",
            f"- delivered and held in {seconds:.0f} s ({files / seconds:,.0f} files/s)",
            f"- resident memory of all processes at most {peak / MB:.0f} MB",
            f"- idle, with all of them held: {100 * idle:.2f} % of one core",
        ]
    )


def _many(buffer: Path, files: int) -> None:
    for number in range(files):
        directory = buffer / f"{number % 100:02d}"
        directory.mkdir(exist_ok=True)
        (directory / f"{number:06d}").write_bytes(number.to_bytes(8) + bytes(92))


def _count(root: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(root))


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _processor_time(manager: psutil.Process) -> float:
    total = 0.0
    for process in [manager, *manager.children(recursive=True)]:
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _options(sshd: Sshd) -> dict[str, str]:
    options = sshd.ssh_section()["options"]
    assert isinstance(options, dict)
    return {**options, "BatchMode": "yes", "IdentitiesOnly": "yes"}


def measure(arena: Arena, load: Load, runs: int, names: Sequence[str]) -> dict[str, list[float]]:
    """The seconds of each program, in turn, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(runs + 1):
        for name in names:
            seconds = getattr(arena, name)(load)
            if turn:
                times[name].append(seconds)
    return times


def report(load: Load, times: dict[str, list[float]]) -> str:
    """A table of medians, ranges and ratios to bare rsync."""
    rsync = statistics.median(times["rsync"])
    lines = [
        f"### {load.name}: {load.files:,} files of {load.bytes:,} bytes",
        "",
        "| program | median s | min s | max s | MB/s | to rsync |",
        "|---|---|---|---|---|---|",
    ]
    for name, seconds in times.items():
        median = statistics.median(seconds)
        speed, ratio = load.files * load.bytes / median / MB, median / rsync
        span = f"{min(seconds):.2f} | {max(seconds):.2f}"
        lines.append(f"| {name} | {median:.2f} | {span} | {speed:.0f} | {ratio:.2f} |")
    return "\n".join(lines)


def _have_modules_compiled(directory: Path) -> None:
    """As pip leaves them; a checkout's are compiled at each start where Python is told to write no files."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loads", nargs="*", default=["S", "M", "L", "trickle", "scale"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--programs", nargs="*", default=list(PROGRAMS), help=", ".join(PROGRAMS))
    parser.add_argument(
        "--directory", type=Path, help="where the trees lie (default: the temporary directory)"
    )
    arguments = parser.parse_args()
    programs = [name for name in arguments.programs if name == "manager" or shutil.which(name)]
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        directory = Path(name)
        _have_modules_compiled(directory / "compiled")
        (directory / "sshd").mkdir()
        with Sshd(directory / "sshd") as sshd:
            arena = Arena(directory, sshd)
            machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
            print(f"{machine}, Linux {platform.release()}\n")
            for name in arguments.loads:
                if name in LOADS:
                    times = measure(arena, LOADS[name], arguments.runs, programs)
                    print(report(LOADS[name], times), "\n", flush=True)
                else:
                    print({"trickle": trickle, "scale": scale}[name](arena), "\n", flush=True)


if __name__ == "__main__":
    main()
