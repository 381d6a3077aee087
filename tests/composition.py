"""What docker-compose makes of `docker-compose.yaml`."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.process import Completed, run

REPOSITORY = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Service:
    """One service, as docker-compose understands it; both its generations write the same in several ways."""

    settings: dict[str, Any]

    @property
    def image(self) -> str:
        return str(self.settings["image"])

    @property
    def dockerfile(self) -> str:
        return str(self.settings["build"]["dockerfile"])

    @property
    def profiles(self) -> list[str]:
        return list(self.settings.get("profiles", []))

    @property
    def command(self) -> list[str]:
        command = self.settings["command"]
        return shlex.split(command) if isinstance(command, str) else command

    @property
    def environment(self) -> dict[str, str]:
        return dict(self.settings["environment"])

    @property
    def health(self) -> str:
        """The health check as the shell gets it."""
        test = self.settings["healthcheck"]["test"]
        return str(test if isinstance(test, str) else test[-1]).replace("$$", "$")

    @property
    def mounts(self) -> dict[str, tuple[str, str]]:
        """By the place inside: the place on the host, and whether it is `rw` or `ro`."""
        found = {}
        for volume in self.settings["volumes"]:
            if isinstance(volume, str):
                source, target, mode = volume.split(":")
            else:
                source, target = volume["source"], volume["target"]
                mode = "ro" if volume.get("read_only") else "rw"
            found[target] = (source, mode)
        return found


def compose_config(before: str, *, project: Path = REPOSITORY, **environment: str) -> Completed:
    """Run `docker-compose config` for all profiles, after a line of shell, in a nearly empty environment."""
    compose = (
        f"{before} && docker-compose --project-directory {shlex.quote(str(project))} "
        f"-f docker-compose.yaml --profile image --profile endpoint config"
    )
    variables = {"PATH": os.environ["PATH"], **environment}
    assignments = [f"{key}={value}" for key, value in variables.items()]
    return run(["env", "-i", *assignments, "bash", "-c", compose], cwd=REPOSITORY, timeout=60)


def services(*, project: Path = REPOSITORY, **environment: str) -> dict[str, Service]:
    """The services with the environment of `source env.bash`.

    Parameters
    ----------
    project
        Where relative paths begin.
    environment
        Variables that are set before.
    """
    done = compose_config("source ./env.bash", project=project, **environment)
    assert done.exit_code == 0, done.stderr.decode()
    found = yaml.safe_load(done.stdout)["services"]
    return {name: Service(settings) for name, settings in found.items()}
