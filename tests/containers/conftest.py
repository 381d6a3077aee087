"""A base, the images, and a site for a container, each made once."""

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.composition import Service, services
from tests.containers.engine import Engine

ACCOUNT = "games"
"""Of the host's accounts, one whose user id and group id differ."""
BASE = "localhost/debian"


@dataclass(frozen=True, slots=True)
class Host:
    """The directories of a host that a service mounts."""

    service: Service

    @property
    def account(self) -> pwd.struct_passwd:
        return pwd.getpwnam(ACCOUNT)

    def place(self, inside: str) -> Path:
        """Where on the host something lies that has this name inside."""
        for target, (source, _) in self.service.mounts.items():
            if Path(inside).is_relative_to(target):
                return Path(source, Path(inside).relative_to(target))
        raise AssertionError(f"{inside} is not mounted")

    def give(self, inside: str, content: bytes, *, mode: int = 0o600) -> Path:
        """Write a file that belongs to the account."""
        path = self.place(inside)
        self.make(path.parent)
        path.write_bytes(content)
        path.chmod(mode)
        os.chown(path, self.account.pw_uid, self.account.pw_gid)
        return path

    def make(self, directory: Path) -> None:
        """Make a directory, and those above it, that belong to the account."""
        if not directory.exists():
            self.make(directory.parent)
            directory.mkdir()
            os.chown(directory, self.account.pw_uid, self.account.pw_gid)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    assert os.geteuid() == 0, "buildah needs to be run as root: sudo bash env.bash test tests/containers"
    # Containers' files are the size of a system: not kept with the test's own.
    with TemporaryDirectory(prefix="dbb-containers-") as directory:
        built = Engine(Path(directory))
        built.make_base(BASE)
        yield built
        built.do("rm", "--all")


@pytest.fixture(scope="session")
def built(engine: Engine) -> dict[str, Service]:
    """The services, their images built."""
    declared = services(USR_NAME=ACCOUNT)
    for name in ("dbbbm", "endpoint"):
        engine.build(declared[name], BASE)
    return declared


@pytest.fixture(scope="session")
def reused(engine: Engine, built: dict[str, Service]) -> str:
    """A container of the handoff image that all tests start again, each with mounts of its own.

    A new one takes seconds, in which its whole system is copied.
    """
    return engine.do("from", built["at-dbbbm"].image)


def host_of(name: str, directory: Path, *, project: Path) -> Host:
    """A host with the directories of one service; `project` stands for the checkout."""
    variables = {variable: str(directory) for variable in ("AT_DBBBM", "CC_DBBBM", "ENDPOINT")}
    host = Host(services(project=project, USR_NAME=ACCOUNT, **variables)[name])
    for inside in host.service.mounts:
        host.make(host.place(inside))
    return host
