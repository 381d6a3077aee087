"""Images and containers without a daemon: buildah with chroot isolation, as root.

Such a container has its own files and its own powers; network and process ids are the host's.
"""

import json
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from common.process import Background, Completed, run
from tests.composition import Service

REPOSITORY = Path(__file__).parents[2]
RELEASE = "bookworm"
WHEELS_ALONE = "[global]\nno-index = true\nfind-links = /wheels\n"
"""A configuration for a pip that finds wheels in that place only."""
_MIRROR = "http://deb.debian.org/debian"
_DOWNLOAD = (sys.executable, "-m", "pip", "download", "-qq", "--only-binary=:all:", "--python-version=3.11")
# What Docker gives a container that drops nothing.
_POWERS = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
    *("NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}


class Engine:
    """buildah, with all that it keeps below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._argv = ["buildah", "--root", str(directory / "store"), "--runroot", str(directory / "run")]
        self._argv += ["--storage-driver", "vfs"]

    def argv(self, *args: str | Path) -> list[str]:
        return [*self._argv, *(str(arg) for arg in args)]

    def do(self, *args: str | Path, timeout: float = 60) -> str:
        """What a command prints that has to succeed."""
        return succeed(self.argv(*args), timeout=timeout)

    def make_base(self, name: str) -> None:
        """A bare Debian with Python, in place of an image that would have to come from a registry."""
        container = self.do("from", "scratch")
        root = self.do("mount", container)
        argv = ["debootstrap", "--variant=minbase", "--include=python3-venv", RELEASE, root, _MIRROR]
        succeed(argv, timeout=240)
        for path in Path(root, "var/cache/apt/archives").glob("*.deb"):
            path.unlink()
        self.do("commit", "--quiet", "--rm", "--disable-compression", container, name)

    @property
    def wheels(self) -> Path:
        """Python packages that were fetched."""
        return self.directory / "wheels"

    def fetch(self, *wanted: str) -> None:
        """Get Python packages with all that they need, as pip wants them to be named."""
        succeed([*_DOWNLOAD, f"--dest={self.wheels}", *wanted], timeout=240)

    def build(self, service: Service, base: str) -> None:
        """The image of a service, its Python packages fetched out here, where pip is set up for that.

        They are checked against the lock's hashes inside.
        """
        dockerfile = (REPOSITORY / service.dockerfile).read_text().replace("${PACKAGES}", "requirements.txt")
        for lock in re.findall(r"^COPY (\S+/requirements.txt) ", dockerfile, re.MULTILINE):
            self.fetch(f"--requirement={REPOSITORY / lock}")
        configuration = self.directory / "pip.conf"
        configuration.write_text(WHEELS_ALONE)
        arguments = {**service.settings["build"]["args"], "BASE": base}
        self.do(
            "bud",
            "--isolation=chroot",
            "--format=docker",
            f"--volume={self.wheels}:/wheels:ro",
            f"--volume={configuration}:/etc/pip.conf:ro",
            *(f"--build-arg={name}={value}" for name, value in arguments.items()),
            f"--file={service.dockerfile}",
            f"--tag={service.image}",
            str(REPOSITORY),
            timeout=240,
        )

    def image(self, name: str) -> dict[str, Any]:
        """What an image says of itself."""
        found: dict[str, Any] = json.loads(self.do("inspect", "--type=image", name))["Docker"]["config"]
        return found

    def megabytes(self, name: str) -> float:
        """The size of an image."""
        (image,) = json.loads(self.do("images", "--json", name))
        number, unit = image["size"].split()
        return float(number) * {"MB": 1, "GB": 1000}[unit]


@dataclass(frozen=True, slots=True)
class Container:
    """A service's container, run as docker-compose declares it; what it prints goes into `output`."""

    engine: Engine
    service: Service
    name: str
    output: Path

    def execute(self, *argv: str, user: str | None = None) -> Completed:
        """Run a program in it, as `docker exec` does."""
        return run(self._argv(argv, user), timeout=60)

    def run(self, *argv: str, user: str | None = None) -> Completed:
        """Run a program by the image's entrypoint, as `docker-compose run` does."""
        return self.execute(*self.entrypoint, *argv, user=user)

    def up(self) -> "Running":
        """Run the service's own command beside the test."""
        argv = self._argv([*self.entrypoint, *self.service.command])
        return Running(Background(argv, output=self.output))

    @property
    def entrypoint(self) -> Sequence[str]:
        found: list[str] = self.engine.image(self.service.image)["Entrypoint"]
        return found

    def health(self) -> Completed:
        """Look after it as the engine does every minute."""
        return self.execute("sh", "-c", self.service.health)

    def _argv(self, argv: Sequence[str], user: str | None = None) -> list[str]:
        settings = self.service.settings
        mounts = self.service.mounts.items()
        return self.engine.argv(
            "run",
            "--isolation=chroot",
            f"--user={user or settings['user']}",
            *(f"--cap-drop=CAP_{name}" for name in _POWERS.difference(settings["cap_add"])),
            *(f"--env={name}={value}" for name, value in self.service.environment.items()),
            *(f"--volume={source}:{inside}:{mode}" for inside, (source, mode) in mounts),
            self.name,
            "--",
            *argv,
        )


class Running:
    """A container at work; a context manager that ends it."""

    def __init__(self, engine_process: Background) -> None:
        self._engine_process = engine_process

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def first(self) -> psutil.Process:
        """The container's first process, which an engine signals: tini."""
        return next(process for process in self._below() if process.name() == "tini")

    def stop(self, signal_name: str) -> None:
        """Signal it, as `docker stop` and `docker kill -s` do."""
        self.first.send_signal(signal.Signals[signal_name])

    def kill(self) -> None:
        """End all its processes at once, as `docker kill` does."""
        for process in self._below():
            with suppress(psutil.NoSuchProcess):  # it may have gone with its parent
                process.kill()
        self._engine_process.kill()

    def wait(self, seconds: float) -> int | None:
        """Wait so long at most for its end; its exit code."""
        return self._engine_process.wait(seconds)

    def _below(self) -> list[psutil.Process]:
        running = self._engine_process.poll() is None
        return psutil.Process(self._engine_process.pid).children(recursive=True) if running else []


def succeed(argv: Sequence[str], *, timeout: float = 60) -> str:
    """What a program prints that has to succeed."""
    done = run(argv, timeout=timeout)
    assert done.exit_code == 0, f"{argv}: {(done.stdout + done.stderr).decode(errors='replace')[-3000:]}"
    return done.stdout.decode().strip()
