"""Two bare machines, on which docs/systemd.md is followed as it stands, with a systemd that runs it all."""

import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.containers.conftest import BASE
from tests.containers.engine import WHEELS_ALONE, Engine, succeed
from tests.containers.machine import Machine, Shared
from tests.fits import night
from tests.loopback import REPOSITORY, files_below
from tests.runs import eventually
from tests.walk import MACHINES, Block, blocks, replaced

pytestmark = [pytest.mark.xdist_group("containers"), pytest.mark.timeout(500)]

ARCHIVE = "archive.example.edu"
INSTALL = (
    "apt-get update -qq && DEBIAN_FRONTEND=noninteractive"
    " apt-get install -qq -y --no-install-recommends openssh-client openssh-server rsync systemd"
)
AT_THE_ENDPOINT = {
    "hdfmgr": "endmgr",
    "auxtel": "archive",
    "handoff/etc/config.yaml": "endpoint/etc/endpoint.yaml",
    "handoff/etc": "endpoint/etc",
    "/data/holding": "/data/staging /data/storage",
}
"""What the page says to type there in the place of what."""
FIRST = "From nothing to a running manager"
SERVICE = "systemctl show --property=MainPID,NRestarts,ActiveState hdfmgr@auxtel"


@dataclass(slots=True)
class Sites:
    """The two machines, and what of the pages is still to be typed there."""

    summit: Machine
    archive: Machine
    todo: dict[str, list[Block]] = field(
        default_factory=lambda: {
            page: [block for block in blocks(page) if block.heading in headings]
            for page, headings in MACHINES.items()
        }
    )

    def step(self, page: str, **words: str) -> str:
        """Type the next block of a page; gives what that prints."""
        block = self.todo[page].pop(0)
        return typed(self.archive if block.at_endpoint else self.summit, block, words)

    def put(self, path: str, content: bytes) -> None:
        """Write a file into the buffer, as the managers' account."""
        (self.summit.root / "root/new").write_bytes(content)
        self.summit.say(
            f"su dbb -c 'cd /data/buffer && mkdir -p $(dirname {path}) && cat >{path}' </root/new"
        )

    def service(self) -> dict[str, str]:
        """What systemd knows of the handoff manager."""
        return dict(line.split("=", 1) for line in self.summit.say(SERVICE).splitlines())

    def is_up(self, *, restarts: int) -> bool:
        """Whether it works after so many restarts, or more."""
        known = self.service()
        return int(known["NRestarts"]) >= restarts and known["ActiveState"] == "active"

    def is_through(self, path: str) -> bool:
        """Whether a file is where it belongs, for either manager."""
        return all(
            f'"state": "{state}"' in machine.type(f"su dbb -c '{history} {path}'").stdout.decode()
            for machine, history, state in (
                (self.summit, "hdfmgr history --json /etc/dbb/auxtel.yaml", "held"),
                (self.archive, "endmgr history --json /etc/dbb/archive.yaml", "ingested"),
            )
        )

    def log(self, *options: str) -> str:
        """What the journal has of the handoff manager's service."""
        return self.summit.say(" ".join(["journalctl --unit hdfmgr@auxtel --output cat", *options]))


def typed(machine: Machine, block: Block, words: dict[str, str]) -> str:
    """Type a block in the checkout, with other words in the place of some; gives what that prints."""
    return machine.say(replaced(block.text, words), cwd="/root/dbb", timeout=240)


def bare(engine: Engine) -> Iterator[Path]:
    """Systems with what any server has, of which the first one starts no sshd."""
    container = engine.do("from", BASE)
    engine.do("run", "--isolation=chroot", container, "--", "sh", "-c", INSTALL, timeout=240)
    root = Path(engine.do("mount", container))
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost {ARCHIVE}\n")
    (root / "etc/pip.conf").write_text(WHEELS_ALONE)
    another = engine.directory / "another"
    succeed(["cp", "-a", str(root), str(another)])
    (root / "etc/systemd/system/multi-user.target.wants/ssh.service").unlink()
    yield from (root, another)


@pytest.fixture(scope="module")
def machines(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """A handoff site and an endpoint, on which nothing of ours is; what is installed on one is on both."""
    engine.fetch(f"--requirement={REPOSITORY}/endpoint/requirements.txt")
    engine.fetch(*tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"])
    opt, programs, consoles = (tmp_path_factory.mktemp(name) for name in ("opt", "bin", "consoles"))
    shared = [
        Shared(REPOSITORY, "/root/dbb"),
        Shared(engine.wheels, "/wheels"),
        Shared(opt, "/opt", "rw"),
        Shared(programs, "/usr/local/bin", "rw"),
    ]
    for place in (opt, programs):
        place.chmod(0o755)  # for every account there
    with ExitStack() as stack:
        one, other = bare(engine)
        summit = stack.enter_context(Machine("summit", one, consoles / "summit", shared))
        archive = stack.enter_context(Machine("archive", other, consoles / "archive", shared, summit))
        yield Sites(summit, archive)


@pytest.fixture(scope="module")
def sites(machines: Sites) -> Sites:
    """The same once the page was followed to where both managers run."""
    machines.step("README.md")
    deploy_endpoint(machines.archive)
    machines.step("systemd.md")
    key = machines.step("systemd.md").splitlines()[-1]
    fingerprint = machines.step("systemd.md", **{"ssh-ed25519 AAAA… dbb@summit": key}).split()[1]
    assert fingerprint in machines.step("systemd.md")
    assert ", 0 FAIL" in machines.step("systemd.md")
    machines.step("systemd.md")
    assert "active (running)" in machines.step("systemd.md")
    return machines


def deploy_endpoint(archive: Machine) -> None:
    """The same page at the endpoint, with its words and without its third step."""
    account, _, _, _, *rest = (block for block in blocks("systemd.md") if block.heading == FIRST)
    *_, status = [typed(archive, block, AT_THE_ENDPOINT) for block in (account, *rest)]
    assert "active (running)" in status


def test_the_page_leads_from_two_bare_machines_to_files_that_are_ingested(sites: Sites) -> None:
    images = list(night(exposures=1, detectors=2))
    for image in images:
        sites.put(image.path, image.content)
        eventually(partial(sites.is_through, image.path), within=60)
    stored = files_below(sites.archive.root / "data/storage")
    assert stored == {image.path.encode(): image.content for image in images}
    assert files_below(sites.summit.root / "data/holding") == stored
    assert files_below(sites.summit.root / "data/buffer") == {}


def test_every_day_a_changed_configuration_is_read_and_a_bad_one_refused(sites: Sites) -> None:
    config = sites.summit.root / "etc/dbb/auxtel.yaml"
    before, whole = sites.service(), config.read_text()
    config.write_text(f"{whole}\ngeneral: {{num_threads: 0}}\n")
    sites.summit.say("systemctl reload hdfmgr@auxtel")
    eventually(lambda: "configuration refused: " in sites.log("--priority=err"))
    assert "started: " not in sites.log("--priority=warning")
    eventually(lambda: sites.service() == before)
    config.write_text(f"{whole}\ngeneral: {{num_threads: 3}}\n")
    said = sites.step("systemd.md")
    assert "active (running)" in said
    assert "held" in said
    eventually(lambda: "general.num_threads: 4 → 3" in sites.log())
    assert sites.service()["ActiveState"] == "inactive"
    sites.step("systemd.md")
    assert sites.summit.type("systemctl is-enabled hdfmgr@auxtel").stdout == b"disabled\n"
    assert sites.todo == {page: [] for page in sites.todo}


def test_a_service_that_is_killed_or_hangs_is_started_again(sites: Sites) -> None:
    # As after `systemctl edit`: nobody waits for minutes here.
    sites.summit.say(
        "cd /etc/systemd/system/hdfmgr@auxtel.service.d && "
        "printf '[Service]\\nRestartSec=1\\nWatchdogSec=5\\n' >hasty.conf && systemctl daemon-reload"
    )
    sites.summit.say("systemctl start hdfmgr@auxtel")
    for number, ending in enumerate(("KILL", "STOP"), start=1):
        sites.summit.say(f"systemctl kill --kill-who=main --signal={ending} hdfmgr@auxtel")
        eventually(partial(sites.is_up, restarts=number), within=60)
    assert "Watchdog timeout" in sites.log()
    assert "Fatal Python error: Aborted" in sites.log()
    sites.put("after.dat", b"after")
    eventually(partial(sites.is_through, "after.dat"), within=60)
