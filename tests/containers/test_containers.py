"""The images are built, and containers of them do what docker-compose.yaml and docs/containers.md say."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from common import __version__
from common.process import run
from tests.composition import Service, services
from tests.containers.conftest import ACCOUNT, BASE, host_of
from tests.containers.engine import REPOSITORY, Container, Engine, Running
from tests.fits import night
from tests.loopback import Sshd, files_below
from tests.runs import eventually

pytestmark = [pytest.mark.xdist_group("containers"), pytest.mark.timeout(500)]

MEGABYTE = 1_000_000
LARGE = b"1" * 60 * MEGABYTE

DEPLOYMENT = (REPOSITORY / "docs" / "containers.md").read_text()


class HandoffSite:
    """A host of at-dbbbm, its container, and an endpoint that this can log into."""

    def __init__(
        self,
        engine: Engine,
        container: str,
        sshd: Sshd,
        directory: Path,
        *,
        root: str = "site",
        enrolled: bool = False,
    ) -> None:
        self.sshd, self.directory = sshd, directory
        self.host = host_of("at-dbbbm", directory / root, project=directory)
        self.container = Container(engine, self.host.service, container, directory / "output")
        self.endpoint_buffer = directory / "endpoint" / "buffer"
        for name in ("buffer", "staging"):
            (directory / "endpoint" / name).mkdir(parents=True)
        for name in ("buffer", "holding"):
            self.host.make(self.host.place(f"/data/{name}"))
        if not enrolled:
            self.host.give("/run/dbb/ssh/id_ed25519", sshd.identity.read_bytes())
            self.host.give("/run/dbb/ssh/known_hosts", sshd.known_hosts.read_bytes(), mode=0o644)
        self.configure()

    def configure(self, **general: object) -> None:
        config = {
            "handoff": {"buffer": "/data/buffer", "holding": "/data/holding"},
            "endpoint": {
                "host": self.sshd.host,
                "user": "root",
                "buffer": str(self.endpoint_buffer),
                "staging": str(self.directory / "endpoint" / "staging"),
                "ssh": {"port": self.sshd.port, "identity": "~/.ssh/id_ed25519"},
            },
            "logging": {"file": "/var/log/dbb/handoff.log"},
            "general": {"settle": 0, "pause": 0.2, "num_threads": 1, "min_free": 0, **general},
        }
        inside = f"/home/dbb/{self.host.service.command[-1]}"
        self.host.give(inside, yaml.safe_dump(config).encode(), mode=0o644)

    def output(self) -> str:
        return (self.directory / "output").read_text()

    def arrived(self) -> dict[bytes, bytes]:
        return files_below(self.endpoint_buffer)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def site(engine: Engine, reused: str, sshd: Sshd, tmp_path: Path) -> HandoffSite:
    return HandoffSite(engine, reused, sshd, tmp_path)


def text(*parts: bytes) -> str:
    return b"".join(parts).decode()


def test_the_handoff_image_is_small_and_knows_nothing_of_catalogues(
    engine: Engine, site: HandoffSite, built: dict[str, Service]
) -> None:
    assert engine.megabytes(built["at-dbbbm"].image) - engine.megabytes(BASE) < 70
    assert site.container.run("sh", "-c", "ls -d /opt/dbb/lib/python3*/site-packages/astro*").exit_code != 0


@pytest.mark.parametrize(("name", "program"), [("dbbbm", "hdfmgr"), ("endpoint", "endmgr")])
def test_an_image_by_itself_does_not_run_as_root(
    name: str, program: str, engine: Engine, built: dict[str, Service]
) -> None:
    image = engine.image(built[name].image)
    assert (image["User"], image["Entrypoint"], image["Cmd"]) == ("dbb", ["entrypoint"], [program, "--help"])
    assert image["Labels"]["org.opencontainers.image.version"] == __version__
    container = engine.do("from", built[name].image)
    told = engine.do(
        "run", "--isolation=chroot", container, "--", "entrypoint", "sh", "-c", f"id -un; {program} --version"
    )
    assert told == f"dbb\n{program} {__version__}"
    engine.do("rm", container)


def test_the_account_inside_has_the_name_and_ids_of_the_hosts_and_no_powers(site: HandoffSite) -> None:
    script = "id -un; id -u; id -G; getent passwd $(id -un); grep CapEff /proc/self/status; touch /data/mine"
    done = site.container.run("sh", "-c", script)
    account = site.host.account
    assert text(done.stdout).splitlines() == [
        account.pw_name,
        str(account.pw_uid),
        str(account.pw_gid),
        f"{account.pw_name}:x:{account.pw_uid}:{account.pw_gid}:of the host:/home/dbb:/bin/sh",
        "CapEff:\t0000000000000000",
    ]
    status = site.host.place("/data/mine").stat()
    assert (status.st_uid, status.st_gid) == (account.pw_uid, account.pw_gid)


def test_ids_that_are_missing_are_told_with_what_to_do(site: HandoffSite) -> None:
    done = called(site, USR_NAME="observer", USR_ID="", GRP_ID="100").run("true")
    assert done.exit_code == 10
    assert text(done.stderr).splitlines()[:2] == [
        "entrypoint: USR_NAME, USR_ID and GRP_ID do not name an account of the host",
        "    give 'source env.bash' in the shell that calls docker-compose",
    ]


def test_a_manager_runs_as_root_where_it_is_told_to_and_says_so(site: HandoffSite) -> None:
    script = "getent passwd 0; hdfmgr --version"
    done = called(site, USR_NAME="root", USR_ID="0", GRP_ID="0").run("sh", "-c", script)
    assert text(done.stdout) == f"root:x:0:0:of the host:/home/dbb:/bin/sh\nhdfmgr {__version__}\n"
    assert text(done.stderr).startswith("entrypoint: the manager will run as root, for USR_ID is 0\n")


def called(site: HandoffSite, **environment: str) -> Container:
    """The site's container, started for another account."""
    return replace(
        site.container, service=Service({**site.host.service.settings, "environment": environment})
    )


def test_a_command_that_is_given_later_is_run_by_the_account_too(site: HandoffSite) -> None:
    site.container.run("true")
    done = site.container.execute("hdfmgr", "initdb", site.host.service.command[-1])
    assert done.exit_code == 0, done.stderr
    (ledger,) = site.host.place("/var/lib/dbb").glob("*.db")
    assert ledger.stat().st_uid == site.host.account.pw_uid


def test_a_key_with_a_foreign_owner_and_an_open_mode_is_put_right_and_told(site: HandoffSite) -> None:
    key = site.host.place("/run/dbb/ssh/id_ed25519")
    os.chown(key, 4321, 4321)
    key.chmod(0o644)
    done = site.container.run("stat", "-c", "%u:%g %a %n", "/home/dbb/.ssh", "/home/dbb/.ssh/id_ed25519")
    ids = f"{site.host.account.pw_uid}:{site.host.account.pw_gid}"
    assert text(done.stdout) == f"{ids} 700 /home/dbb/.ssh\n{ids} 600 /home/dbb/.ssh/id_ed25519\n"
    assert text(done.stderr).splitlines()[:2] == [
        f"entrypoint: /run/dbb/ssh/id_ed25519 belongs to the user id 4321, and not to {ids.split(':')[0]}; "
        "its copy inside is put right",
        f"    to have it right on the host as well: chown {ids} id_ed25519",
    ]
    assert (key.stat().st_uid, key.stat().st_mode & 0o777) == (4321, 0o644)


def test_a_key_that_cant_be_read_is_told_with_what_to_do(engine: Engine, site: HandoffSite) -> None:
    site.container = replace(site.container, name=engine.do("from", site.host.service.image))
    done = site.container.run("true", user="dbb")
    (owner, hint, *_) = text(done.stderr).splitlines()
    assert owner == (
        "entrypoint: /run/dbb/ssh/id_ed25519 can't be read: "
        f"it belongs to the user id {site.host.account.pw_uid}, and not to 1000"
    )
    assert hint == "    on the host, give 'chown 1000:1000 id_ed25519', then start the container again"


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_without_known_hosts_nothing_starts_and_it_says_what_to_do(
    content: bytes | None, site: HandoffSite
) -> None:
    known_hosts = site.host.place("/run/dbb/ssh/known_hosts")
    known_hosts.unlink()
    if content is not None:
        known_hosts.write_bytes(content)
    with site.container.up() as running:
        assert running.wait(20) == 10
    assert "no host key is known" in site.output()
    assert "ssh-keyscan -p PORT ENDPOINT >known_hosts" in site.output()
    assert list(site.host.place("/var/lib/dbb").iterdir()) == []


def test_an_unknown_host_key_keeps_everything_where_it_is_until_it_is_enrolled(site: HandoffSite) -> None:
    known_hosts = site.host.place("/run/dbb/ssh/known_hosts")
    right = known_hosts.read_bytes()
    known_hosts.write_bytes(b"other.example.edu " + right.split(maxsplit=1)[1])
    site.host.give("/data/buffer/a.fits", b"content")
    with site.container.up():
        log = site.host.place("/var/log/dbb/handoff.log")
        eventually(lambda: log.exists() and "host key unknown" in log.read_text())
        health = site.container.health()
        assert health.exit_code == 1, text(health.stdout)
        assert "host key unknown" in text(health.stdout)
    assert site.arrived() == {}
    known_hosts.write_bytes(right)
    with site.container.up():
        eventually(lambda: site.arrived() == {b"a.fits": b"content"})


def test_a_file_travels_from_the_container_and_its_manager_is_healthy(site: HandoffSite) -> None:
    with site.container.up() as running:
        name = "/data/buffer/night 1/it's; $(all).fits"
        site.host.give(name, b"content")
        held = site.host.place(name.replace("buffer", "holding"))
        eventually(held.exists)
        assert site.arrived() == {b"night 1/it's; $(all).fits": b"content"}
        assert held.stat().st_uid == site.host.account.pw_uid
        health = site.container.health()
        assert health.exit_code == 0, text(health.stdout)
        owners = {process.uids().real for process in running.first.children(recursive=True)}
        assert owners == {site.host.account.pw_uid}


def test_a_stopped_container_finishes_what_is_in_flight_and_takes_nothing_new(site: HandoffSite) -> None:
    site.configure(bandwidth="2MB/s", chunk_size=1)
    site.host.give("/data/buffer/1 first", b"1" * 14 * MEGABYTE)
    with site.container.up() as running:
        staging = site.directory / "endpoint" / "staging"
        eventually(lambda: sum(map(len, files_below(staging).values())) > MEGABYTE)
        site.host.give("/data/buffer/2 second", b"2")
        running.stop(site.host.service.settings["stop_signal"])
        assert running.wait(60) == 0
    assert site.arrived() == {b"1 first": b"1" * 14 * MEGABYTE}
    with site.container.up():
        eventually(lambda: len(files_below(site.host.place("/data/holding"))) == 2)
    assert site.arrived() == {b"1 first": b"1" * 14 * MEGABYTE, b"2 second": b"2"}


def test_a_stop_that_may_not_wait_gives_up_what_is_in_flight_and_the_next_start_resumes_it(
    site: HandoffSite,
) -> None:
    with under_way(site) as running:
        running.stop("SIGTERM")
        assert running.wait(30) == 0
    assert_resumed(site)


def test_a_container_that_is_killed_goes_on_where_it_was(site: HandoffSite) -> None:
    with under_way(site) as running:
        running.kill()
    assert_resumed(site)


@contextmanager
def under_way(site: HandoffSite) -> Iterator[Running]:
    """A container that is sending a file for which it needs a minute."""
    site.configure(bandwidth="1MB/s")
    site.host.give("/data/buffer/large", LARGE)
    with site.container.up() as running:
        staging = site.directory / "endpoint" / "staging"
        eventually(lambda: sum(map(len, files_below(staging).values())) > MEGABYTE)
        yield running


def assert_resumed(site: HandoffSite) -> None:
    assert site.arrived() == {}
    site.configure()
    with site.container.up():
        eventually(lambda: files_below(site.host.place("/data/holding")) == {b"large": LARGE})
    assert site.arrived() == {b"large": LARGE}


def test_the_endpoints_container_stores_and_ingests_with_the_example_as_it_is(
    engine: Engine, built: dict[str, Service], tmp_path: Path
) -> None:
    host = host_of("endpoint", tmp_path / "site", project=tmp_path)
    container = Container(
        engine, host.service, engine.do("from", built["endpoint"].image), tmp_path / "output"
    )
    typed = next(line for line in DEPLOYMENT.splitlines() if "$ENDPOINT/data/{buffer" in line)
    typed = typed.removeprefix("sudo ").replace("$USR_NAME", ACCOUNT)
    done = run(["bash", "-euc", typed], env={"ENDPOINT": str(tmp_path / "site")}, timeout=30)
    assert done.exit_code == 0, text(done.stderr)
    name = host.service.command[-1]
    host.give(f"/home/dbb/{name}", (REPOSITORY / "endpoint/etc/endpoint.yaml").read_bytes(), mode=0o644)
    (image,) = night(exposures=1, detectors=1)
    host.give(f"/data/buffer/{image.path}", image.content)
    with container.up() as running:
        eventually(lambda: _ingested(container, name) == 1)
        health = container.health()
        assert health.exit_code == 0, text(health.stdout)
        running.stop(host.service.settings["stop_signal"])
        assert running.wait(30) == 0
    assert files_below(host.place("/data/storage")) == {image.path.encode(): image.content}


def test_the_documented_deployment_carries_a_file(
    engine: Engine, reused: str, sshd: Sshd, tmp_path: Path
) -> None:
    # As typed, but for the places, the endpoint's name, and `sudo` where root types.
    steps = "\n".join(re.findall(r"^```\n(.*?)^```$", DEPLOYMENT, re.MULTILINE | re.DOTALL)[:3])
    for words, meant in (
        ("/srv/dbb", str(tmp_path)),
        ("sudo -u $USR_NAME", f"runuser -u {ACCOUNT} --"),
        ("sudo ", ""),
        ("observer", ACCOUNT),
        ("-p 22 archive.example.edu", f"-p {sshd.port} {sshd.host}"),
        ("/etc/ssh/ssh_host_ed25519_key.pub", str(sshd.directory / "id_host.pub")),
    ):
        assert words in steps
        steps = steps.replace(words, meant)
    for directory in (tmp_path, *tmp_path.parents):
        directory.chmod(directory.stat().st_mode | 0o011)  # the account makes its key below them
    done = run(["bash", "-euc", steps], cwd=tmp_path, timeout=30)
    assert done.exit_code == 0, text(done.stderr)
    fingerprint = text(done.stdout).splitlines()[-1].split()[1]
    assert text(done.stdout).count(fingerprint) == 2
    site = HandoffSite(engine, reused, sshd, tmp_path, root="auxtel", enrolled=True)
    use_example(site)
    with (sshd.directory / "authorized_keys").open("a") as keys:
        keys.write((tmp_path / "auxtel" / "ssh" / "id_ed25519.pub").read_text())
    with site.container.up() as running:
        site.host.give("/data/buffer/a.fits", b"content")
        eventually(lambda: site.arrived() == {b"a.fits": b"content"})
        use_example(site, ("#general:", "general:"), ("#num_threads: 4", "num_threads: 3"))
        running.stop("SIGHUP")
        eventually(lambda: "general.num_threads: 4 → 3" in site.output())
    assert "entrypoint:" not in site.output()


def use_example(site: HandoffSite, *changes: tuple[str, str]) -> None:
    """Have it work by the example as it stands, but for the endpoint's name, account, port and place."""
    inside = f"/home/dbb/{site.host.service.command[-1]}"
    example = (REPOSITORY / "handoff/etc" / Path(inside).name).read_text()
    for words, meant in (
        ("archive.example.edu", site.sshd.host),
        ("#user: jdoe", "user: root"),
        ("#ssh:\n    #port: 22", f"ssh:\n    port: {site.sshd.port}"),
        ("/srv/dbb/auxtel/data", str(site.endpoint_buffer.parent)),
        *changes,
    ):
        assert words in example
        example = example.replace(words, meant)
    site.host.give(inside, example.encode(), mode=0o644)


# What loadLSST.bash and setup do, as far as our image relies on it.
STAND_IN_FOR_A_STACK = """FROM {base}
RUN python3 -m venv /opt/conda && mkdir -p /opt/lsst/software/stack /opt/stack \\
    && echo 'VERSION = "w_2026_40"' >/opt/stack/stack_stand_in.py \\
    && printf '%s\\n' 'PATH=/opt/conda/bin:$PATH' 'setup() {{ export PYTHONPATH=/opt/stack; }}' \\
        >/opt/lsst/software/stack/loadLSST.bash
"""


def test_on_a_stack_the_endpoint_manager_runs_with_the_stacks_packages(
    engine: Engine, built: dict[str, Service], tmp_path: Path
) -> None:
    containerfile = tmp_path / "Containerfile"
    containerfile.write_text(STAND_IN_FOR_A_STACK.format(base=BASE))
    engine.do("bud", "--isolation=chroot", f"--file={containerfile}", "--tag=localhost/stack", tmp_path)
    service = services(ENDPOINT_DOCKERFILE="Dockerfile.stack", USR_NAME=ACCOUNT)["endpoint"]
    engine.build(service, "localhost/stack")
    host = host_of("endpoint", tmp_path / "site", project=tmp_path)
    container = Container(engine, host.service, engine.do("from", service.image), tmp_path / "output")
    told = container.run("endmgr", "--version")
    assert (told.exit_code, told.stdout) == (0, f"endmgr {__version__}\n".encode()), text(told.stderr)
    code = "import stack_stand_in, endpoint, pydantic; print(stack_stand_in.VERSION)"
    assert text(container.run("/opt/dbb/bin/python", "-c", code).stdout) == "w_2026_40\n"


def _ingested(container: Container, configuration: str) -> int:
    """How many files the endpoint manager says are ingested."""
    done = container.execute("endmgr", "status", "--json", configuration)
    return int(json.loads(done.stdout)["states"]["ingested"]["files"]) if done.exit_code == 0 else 0
