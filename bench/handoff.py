"""The handoff manager beside rsync, rclone and scp, over a real sshd on loopback: ``python -m bench.handoff``.

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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.loopback import Sites, Sshd

MB = 1_000_000


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
            time.sleep(1.1)  # settle
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
            lambda source, target: ["rsync", "-a", "-e", self._ssh, f"{source}/", f"127.0.0.1:{target}/"],
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

    @contextmanager
    def _sites(self, load: Load) -> Iterator[Sites]:
        """Two sites with a copy of the tree in the buffer; hard links would be moved away with it."""
        self._runs += 1
        directory = self._directory / f"run-{self._runs}"
        sites = Sites(directory, self._sshd)
        shutil.copytree(self.source(load), sites.buffer, dirs_exist_ok=True)
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
        began = time.perf_counter()
        subprocess.run(argv(source, target), check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        assert sum(path.is_file() for path in target.rglob("*")) == load.files
        shutil.rmtree(target)
        return seconds


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
        speed = load.files * load.bytes / median / MB
        lines.append(
            f"| {name} | {median:.2f} | {min(seconds):.2f} | {max(seconds):.2f} | {speed:.0f} | {median / rsync:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loads", nargs="*", default=list(LOADS), help="S, M, L")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--programs", nargs="*", default=list(PROGRAMS), help=", ".join(PROGRAMS))
    parser.add_argument(
        "--directory", type=Path, help="where the trees lie (default: the temporary directory)"
    )
    arguments = parser.parse_args()
    programs = [name for name in arguments.programs if name == "manager" or shutil.which(name)]
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        directory = Path(name)
        (directory / "sshd").mkdir()
        with Sshd(directory / "sshd") as sshd:
            arena = Arena(directory, sshd)
            print(
                f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}\n"
            )
            for load in arguments.loads:
                print(
                    report(LOADS[load], measure(arena, LOADS[load], arguments.runs, programs)),
                    "\n",
                    flush=True,
                )


if __name__ == "__main__":
    main()
