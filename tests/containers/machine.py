"""A whole machine without a hypervisor: namespaces in which systemd is the first process.

Files, processes, network and control groups are its own, so that nothing that is typed there can be noticed
outside. It has no way to any network but its own loopback.
"""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from common.process import Background, Completed, run
from tests.runs import eventually

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The first process of the namespaces makes itself at home, and becomes systemd. It may not touch what has no
# namespace: the clock, modules, the kernel's variables.
_BOOT = """
set -eu
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root"
while [ $# != 0 ]; do
    mkdir -p "$root$2"; mount --bind "$1" "$root$2"; mount -o "remount,bind,$3" "$root$2"; shift 3
done
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom tty; do
    touch "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
cd "$root"
pivot_root . .
umount -l .
cd /
exec setpriv --bounding-set=-sys_boot,-sys_module,-sys_rawio,-sys_time \\
    env -i container=test "$PATH_INSIDE" /lib/systemd/systemd
"""


@dataclass(frozen=True, slots=True)
class Shared:
    """A directory of this machine that is seen in the other one, too."""

    outside: Path
    inside: str
    mode: str = "ro"


class Machine:
    """A system that is started; a context manager.

    Parameters
    ----------
    name
        Its host name.
    root
        Its files: a Debian with systemd.
    console
        A file for what its systemd says.
    shared
        What it sees beside these.
    neighbour
        One that runs already, with which it has the network in common.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        console: Path,
        shared: Sequence[Shared] = (),
        neighbour: "Machine | None" = None,
    ) -> None:
        self.root, self.console = root, console
        self._shared = shared
        self._neighbour = neighbour
        self._group = _control_groups() / f"dbb-{os.getpid()}-{name}"
        self._process: Background | None = None
        (root / "etc/hostname").write_text(f"{name}\n")

    def __enter__(self) -> Self:
        self._group.mkdir()
        network = self._neighbour.enter("--net") if self._neighbour else []
        apart = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        apart += [] if self._neighbour else ["--net"]
        # Its control groups begin where it is once it has moved.
        first = 'echo 0 >"$1/cgroup.procs" && shift && exec unshare --cgroup sh -c "$0" sh "$@"'
        binds = [word for one in self._shared for word in (str(one.outside), one.inside, one.mode)]
        argv = [*network, *apart, "sh", "-c", first, _BOOT, str(self._group), str(self.root), *binds]
        self._process = Background(
            argv, env={"PATH_INSIDE": _PATH}, output=self.console, death_signal=signal.SIGKILL
        )
        eventually(self._is_up, within=60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process and (first := self._first()):
            first.kill()  # and with it all others there
        if self._process:
            self._process.close(grace=10)
        groups = sorted(self._group.rglob("*/"), key=lambda path: len(path.parts), reverse=True)
        eventually(lambda: "populated 0" in (self._group / "cgroup.events").read_text())
        for group in [*groups, self._group]:
            group.rmdir()

    def enter(self, *spaces: str) -> list[str]:
        """What a command is preceded by that is to run there."""
        first = self._first()
        assert first, self.console.read_text()
        return ["nsenter", f"--target={first.pid}", *spaces]

    def type(self, script: str, *, cwd: str = "/root", timeout: float = 120) -> Completed:
        """Have root's bash run a script there, which ends with the first command that fails."""
        home = ["env", "-i", f"--chdir={cwd}", "HOME=/root", "USER=root", "COLUMNS=1000", _PATH]
        return run([*self.enter("--all"), *home, "bash", "-ec", script], timeout=timeout)

    def say(self, script: str, *, cwd: str = "/root", timeout: float = 120) -> str:
        """What a script prints there that has to succeed."""
        done = self.type(script, cwd=cwd, timeout=timeout)
        said = (done.stdout + done.stderr).decode(errors="backslashreplace")
        assert done.exit_code == 0, f"{script}\n{said}"
        return said

    def _first(self) -> psutil.Process | None:
        """Its first process."""
        if self._process is None or self._process.poll() is not None:
            return None
        below = psutil.Process(self._process.pid).children()
        return below[0] if below else None

    def _is_up(self) -> bool:
        first = self._first()
        assert first or (self._process and self._process.poll() is None), self.console.read_text()
        return bool(first) and self.type("systemctl is-active multi-user.target").exit_code == 0


def _control_groups() -> Path:
    """Where this process's group of the second version is."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    top = next(Path(target) for _, target, kind, *_ in mounts if kind == "cgroup2")
    within = next(
        line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")
    )
    return top / within.lstrip("/")
