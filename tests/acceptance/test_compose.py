"""docker-compose accepts `docker-compose.yaml` as it is meant; the images' packages are locked."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from common import __version__
from common.process import run
from tests.composition import Service, compose_config, services

REPOSITORY = Path(__file__).parents[2]
LOCKS = ("handoff/requirements.txt", "endpoint/requirements.txt", "endpoint/requirements.butler.txt")


@pytest.fixture(scope="module")
def declared() -> dict[str, Service]:
    return services()


def test_a_plain_up_starts_the_managers_of_the_instruments(declared: dict[str, Service]) -> None:
    profiles = {name: service.profiles for name, service in declared.items()}
    assert profiles == {"at-dbbbm": [], "cc-dbbbm": [], "dbbbm": ["image"], "endpoint": ["endpoint"]}


def test_the_handoff_managers_have_one_image_that_the_service_dbbbm_builds(
    declared: dict[str, Service],
) -> None:
    built = {service.image: service.dockerfile for service in declared.values()}
    assert built == {
        f"dbbbm:{__version__}": "handoff/Dockerfile",
        f"dbb-endpoint:{__version__}": "endpoint/Dockerfile",
    }


@pytest.mark.parametrize(("name", "directory"), [("at-dbbbm", "auxtel"), ("cc-dbbbm", "comcam")])
def test_an_instrument_has_its_own_directories(
    name: str, directory: str, declared: dict[str, Service]
) -> None:
    assert declared[name].mounts == {
        "/data": (f"/srv/dbb/{directory}/data", "rw"),
        "/var/log/dbb": (f"/srv/dbb/{directory}/logs", "rw"),
        "/var/lib/dbb": (f"/srv/dbb/{directory}/ledger", "rw"),
        "/run/dbb/ssh": (f"/srv/dbb/{directory}/ssh", "ro"),
        "/home/dbb/local/etc": (str(REPOSITORY / "handoff" / "etc"), "ro"),
    }


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("at-dbbbm", "hdfmgr start local/etc/at_dbbbm_config.yaml"),
        ("cc-dbbbm", "hdfmgr start local/etc/cc_dbbbm_config.yaml"),
        ("endpoint", "endmgr start local/etc/endpoint.yaml"),
    ],
)
def test_the_command_chooses_the_configuration(name: str, command: str, declared: dict[str, Service]) -> None:
    assert declared[name].command == command.split()


def test_one_variable_repurposes_a_service_for_another_instrument(tmp_path: Path) -> None:
    moved = services(AT_DBBBM=str(tmp_path / "latiss"))
    assert {source for source, _ in moved["at-dbbbm"].mounts.values()} == {
        *(str(tmp_path / "latiss" / name) for name in ("data", "logs", "ledger", "ssh")),
        str(REPOSITORY / "handoff" / "etc"),
    }
    assert moved["cc-dbbbm"] == services()["cc-dbbbm"]


def test_instruments_differ_in_their_command_and_their_mounts_only(declared: dict[str, Service]) -> None:
    alike = {"command", "volumes"}
    auxtel, comcam = (
        {key: value for key, value in declared[name].settings.items() if key not in alike}
        for name in ("at-dbbbm", "cc-dbbbm")
    )
    assert auxtel == comcam


@pytest.mark.parametrize("name", ["at-dbbbm", "cc-dbbbm", "endpoint"])
def test_a_manager_is_kept_up_and_has_little_power(name: str, declared: dict[str, Service]) -> None:
    settings = declared[name].settings
    kept = {
        key: settings[key] for key in ("network_mode", "restart", "stop_signal", "cap_drop", "security_opt")
    }
    assert kept == {
        "network_mode": "host",
        "restart": "unless-stopped",
        "stop_signal": "SIGUSR1",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }
    assert settings["cap_add"] == ["CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID"]


@pytest.mark.parametrize(("name", "program"), [("at-dbbbm", "hdfmgr"), ("endpoint", "endmgr")])
@pytest.mark.parametrize(
    ("exit_code", "healthy"), [(0, True), (1, False), (4, False), (5, True), (10, False)]
)
def test_a_manager_is_healthy_unless_its_check_fails(
    exit_code: int,
    healthy: bool,
    name: str,
    program: str,
    declared: dict[str, Service],
    tmp_path: Path,
) -> None:
    stand_in = tmp_path / program
    stand_in.write_text(f'#!/bin/sh\necho "$@"\nexit {exit_code}\n')
    stand_in.chmod(0o755)
    (tmp_path / "running").symlink_to("local/etc/it's this.yaml")
    command = f'PATH={tmp_path}:"$PATH"; {declared[name].health}'
    done = run(["sh", "-c", command], cwd=tmp_path, timeout=20)
    assert (done.exit_code == 0, done.stdout) == (healthy, b"check --json local/etc/it's this.yaml\n")


def test_without_its_environment_it_says_how_to_get_it() -> None:
    done = compose_config("true", USR_ID="", GRP_ID="")
    assert done.exit_code != 0
    assert b"give 'source env.bash' first" in done.stderr


def requirements(*, extra: str | None = None) -> set[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    more = project["optional-dependencies"][extra] if extra else []
    return {*project["dependencies"], *more}


def handoff_requirements() -> set[str]:
    lines = (REPOSITORY / "handoff" / "requirements.in").read_text().splitlines()
    return {line for line in lines if not line.startswith("#")}


def locked(lock: str) -> dict[str, list[str]]:
    """The versions of each package that a lock names; of two, the interpreter's version decides."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)", (REPOSITORY / lock).read_text(), flags=re.MULTILINE
    ):
        found.setdefault(name, []).append(version)
    return found


def test_the_handoff_image_lacks_nothing_but_the_catalogues_packages() -> None:
    lacking = requirements() - handoff_requirements()
    assert handoff_requirements() < requirements()
    assert {Requirement(line).name for line in lacking} == {"astro-metadata-translator", "astropy"}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_fits_what_the_project_requires(lock: str) -> None:
    required = {
        "handoff/requirements.txt": handoff_requirements(),
        "endpoint/requirements.txt": requirements(),
        "endpoint/requirements.butler.txt": requirements(extra="butler"),
    }[lock]
    versions = locked(lock)
    for requirement in map(Requirement, required):
        found = versions.get(requirement.name.lower(), [])
        assert found, f"{requirement.name} is not in {lock}: make it anew by the command at its head"
        assert all(requirement.specifier.contains(version) for version in found), (requirement, found)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_its_hashes(lock: str) -> None:
    entries = re.split(r"^(?=[\w.-]+==)", (REPOSITORY / lock).read_text(), flags=re.MULTILINE)[1:]
    assert entries
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
