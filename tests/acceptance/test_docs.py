"""The how-tos of docs/ are followed as they stand: every command is run, and does what the page says."""

import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.process import run
from tests.archive import Archive
from tests.fits import night
from tests.loopback import REPOSITORY, Sites, Sshd, files_below, write_file
from tests.runs import Run, counts, eventually, states
from tests.walk import (
    DOCS,
    FOLLOWED,
    MACHINES,
    PROGRAMS,
    Walk,
    blocks,
    follows,
    managers,
    minute,
    place,
    prose,
    replaced,
    user,
)

HOST = "archive.example.edu"
FILE = b"night1/a.dat"


@pytest.fixture
def walk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Walk]:
    """Somebody who follows the page that the test is for."""
    page, headings = request.param
    chosen = [block for block in blocks(page) if block.heading in headings]
    with Walk(tmp_path / "walk", chosen) as walk:
        yield walk


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "sshd") as server:
        yield server


# cron.md


def settle_down(walk: Walk, sshd: Sshd) -> tuple[Path, Path]:
    """Let the pages' places and the endpoint's name mean the test's own; gives each site's root directory.

    The account's keys lie in the walk's home. ssh itself looks for them in the home directory that
    the system knows, whatever `$HOME` says, and is told by a configuration.
    """
    here, there = walk.directory / "handoff", walk.directory / "endpoint"
    for root in (here, there):
        for name in ("cron.d", "dbb"):
            (root / "etc" / name).mkdir(parents=True)
    config, keys = walk.home / "ssh_config", walk.home / ".ssh"
    config.write_text(
        f"Host {HOST}\nHostName {sshd.host}\nPort {sshd.port}\nGlobalKnownHostsFile /dev/null\n"
        f"UserKnownHostsFile {keys}/known_hosts\nIdentityFile {keys}/id_ed25519\nIdentitiesOnly yes\n"
    )
    walk.words |= {
        f"host: {HOST}": f"host: {HOST}\n  ssh: {{config: {config}}}",
        f"-p 22 {HOST}": f"-p {sshd.port} {sshd.host}",
        f"ssh keeper@{HOST}": f"ssh -F {config} {user()}@{HOST}",
        "/etc/ssh/ssh_host_ed25519_key.pub": f"{sshd.directory}/id_host.pub",
        "/archive": f"{there}/archive",
        **{f"/usr/local/bin/{program}": f"{PROGRAMS}/{program}" for program in ("hdfmgr", "endmgr")},
    }
    places = ("/etc/dbb", "/etc/cron.d", "/data", "/var/log/dbb")
    walk.here |= {place: f"{here}{place}" for place in places}
    walk.there |= {place: f"{there}{place}" for place in places}
    return here, there


def exchange_keys(walk: Walk, sshd: Sshd) -> None:
    """The steps from the making of a key to the first login."""
    key = walk.step().splitlines()[-1]
    walk.words["ssh-ed25519 AAAA… observer@summit"] = key
    walk.step()
    shutil.copy(walk.endpoint_home / ".ssh/authorized_keys", sshd.directory)
    fingerprints, shown = walk.step(), walk.step()
    assert shown.split()[1] in fingerprints
    walk.step()


@follows(
    "cron.md",
    *("The endpoint site", "The handoff site", "The first file"),
    *("To stop for longer than a minute", "Two instruments on one host"),
)
def test_with_cron_alone_a_bare_host_carries_the_files_of_one_instrument_and_of_two(
    walk: Walk, own_sshd: Sshd
) -> None:
    here, there = settle_down(walk, own_sshd)
    (own_sshd.directory / "authorized_keys").write_text("")

    def cron() -> list[tuple[int, bytes]]:
        at_endpoint = minute(walk, there / "etc/cron.d", at_endpoint=True)
        return at_endpoint + minute(walk, here / "etc/cron.d", at_endpoint=False)

    for _ in range(4):
        walk.step()
    exchange_keys(walk, own_sshd)
    assert " 0 WARN, 0 FAIL" in walk.step()
    walk.step()
    assert cron() == [(0, b"")] * 2
    [first] = managers(walk.home)
    assert cron() == [(0, b"")] * 2  # they run: nothing is said
    first.kill()
    eventually(lambda: managers(walk.home) == [])
    assert cron() == [(0, b"")] * 2
    assert managers(walk.home) != [first]
    walk.step()
    eventually(lambda: (there / "archive/storage/night1/first.txt").exists(), within=60)
    eventually(lambda: (here / "data/holding/night1/first.txt").exists())
    assert "held" in walk.step()
    assert "ingested" in walk.step()
    assert "finished what was in flight" in walk.step()
    assert (cron(), managers(walk.home)) == ([(0, b"")], [])
    for _ in range(4):
        walk.step()
    assert cron() == [(0, b"")] * 4
    for instrument in ("auxtel", "comcam"):
        write_file(here / "data" / instrument / "buffer", b"a.dat", instrument.encode())
    for instrument in ("auxtel", "comcam"):
        stored = there / "archive" / instrument / "storage/a.dat"
        eventually(stored.exists, within=60)
        assert stored.read_text() == instrument


# README.md


@follows("README.md", "Use it")
def test_what_the_readme_shows_carries_a_file_and_finds_it_in_the_catalogue(
    walk: Walk, own_sshd: Sshd
) -> None:
    here, there = settle_down(walk, own_sshd)
    for root, names in ((here, ("buffer", "holding")), (there, ("buffer", "staging", "storage"))):
        for name in names:
            (root / "data" / name).mkdir(parents=True)
    ssh = walk.home / ".ssh"
    shutil.copytree(own_sshd.directory, ssh)
    (ssh / "id_user").rename(ssh / "id_ed25519")
    handoff, endpoint = re.findall(r"^```yaml\n(.*?)^```", place("README.md").read_text(), re.M | re.S)
    ours, theirs = handoff.split("endpoint:")
    configured = replaced(f"endpoint:{theirs}", {**walk.words, "/data": f"{there}/data"})
    (walk.home / "handoff.yaml").write_text(replaced(ours, walk.here) + configured)
    (walk.endpoint_home / "endpoint.yaml").write_text(replaced(endpoint, walk.there))
    [image] = night(exposures=1, detectors=1)
    write_file(here / "data/buffer", b"night1/image.fits", image.content)
    once(walk, "hdfmgr", "handoff.yaml")
    said = walk.step(failing={"hdfmgr check": 4})  # it does not run
    assert ", 0 WARN, 1 FAIL" in said
    assert "nothing: it is through" in said
    once(walk, "endmgr", "endpoint.yaml")
    assert walk.step().startswith("night1/image.fits|")


def once(walk: Walk, program: str, config: str) -> None:
    """Have a manager do what is to be done."""
    at_endpoint = program == "endmgr"
    cwd = walk.endpoint_home if at_endpoint else walk.home
    argv = [str(PROGRAMS / program), "start", "--once", config]
    done = run(argv, env=walk.environment(at_endpoint=at_endpoint), cwd=cwd, timeout=60)
    assert done.exit_code == 0, done.stderr.decode()


# migration.md


def leave_original(walk: Walk, sshd: Sshd, here: Path, there: Path) -> str:
    """A configuration of the original handoff manager, its database, files; gives its last section."""
    for directory in (here / "data/holding", there / "archive/staging"):
        directory.mkdir(parents=True)
    for root, path, content in (
        (here / "data/buffer", FILE, b"a"),
        (there / "archive/buffer", FILE, b"a"),
        (here / "data/buffer", b"b.dat", b"b"),
    ):
        write_file(root, path, content)
    with closing(sqlite3.connect(here / "data/original.db")) as connection:
        connection.execute("CREATE TABLE files (id INTEGER PRIMARY KEY, filename TEXT)")
    shutil.copytree(sshd.directory, walk.home / ".ssh")
    (walk.home / ".ssh/id_user").rename(walk.home / ".ssh/id_ed25519")
    options = f"-F {walk.home}/ssh_config"
    endpoint = f"""\
endpoint:
  user: {user()}
  host: {HOST}
  port: {sshd.port}
  buffer: {there}/archive/buffer
  staging: {there}/archive/staging
  commands:
    remote: 'ssh {options} -p {{port}} {{user}}@{{host}} "{{command}}"'
    transfer: 'scp {options} -Bpq -P {{port}} {{file}} {{user}}@{{host}}:{{dest}}'
"""
    (here / "etc/dbb/original.yaml").write_text(
        f"""\
database:
  engine: "sqlite:///{here}/data/original.db"
  echo: false
  pool_class: NullPool
handoff:
  buffer: {here}/data/buffer
  holding: {here}/data/holding
{endpoint}"""
    )
    return endpoint


@follows("migration.md", "From the original handoff manager")
def test_a_buffer_of_the_original_manager_is_taken_over_with_the_files_in_it(
    walk: Walk, own_sshd: Sshd
) -> None:
    here, there = settle_down(walk, own_sshd)
    buffer, arrived, holding = here / "data/buffer", there / "archive/buffer", here / "data/holding"
    endpoint = leave_original(walk, own_sshd, here, there)
    before = (here / "data/original.db").read_bytes()
    assert "database.pool_class: is ignored" in walk.step()
    assert ", 1 WARN, 0 FAIL" in walk.step(failing={"hdfmgr check": 5})
    walk.step()
    eventually(lambda: files_below(holding).keys() == {FILE, b"b.dat"}, within=60)
    assert files_below(arrived) == {FILE: b"a", b"b.dat": b"b"}
    [shown] = re.findall(r"^```yaml\n(.*?)^```", (DOCS / "migration.md").read_text(), re.M | re.S)
    for words, meant in (
        ("port: 22", f"config: {walk.home}/ssh_config"),
        ("keeper", user()),
        ("/archive", f"{there}/archive"),
    ):
        shown = shown.replace(words, meant)
    config = here / "etc/dbb/handoff.yaml"
    config.write_text(config.read_text().replace(endpoint, shown))
    assert "delivered by stream" in walk.step()
    write_file(buffer, b"c.dat", b"c")
    eventually(lambda: files_below(arrived).keys() == {FILE, b"b.dat", b"c.dat"}, within=60)
    assert (here / "data/original.db").read_bytes() == before


@follows(
    "migration.md", "From the OODS", "To a configuration of endmgr", "From the original endpoint manager"
)
def test_an_oods_is_followed_by_the_endpoint_manager(walk: Walk, own_sshd: Sshd) -> None:
    _, there = settle_down(walk, own_sshd)
    for name in ("buffer", "storage", "staging", "repo/raw"):
        (there / "archive" / name).mkdir(parents=True)
    program = there / "ingestImages.py"
    program.write_text('#!/bin/sh\nrepo=$1; shift 5; mkdir -p "$repo/raw"; mv -- "$@" "$repo/raw/"\n')
    program.chmod(0o755)
    example = (REPOSITORY / "endpoint/etc/oods.yaml").read_text()
    (there / "etc/dbb/oods.yaml").write_text(example.replace("/data", f"{there}/archive"))
    write_file(there / "archive/buffer", b"a.dat", b"a")
    walk.programs = there
    assert "ingestImages.py" in walk.step(failing={"endmgr check": 5})
    eventually(lambda: files_below(there / "archive/repo") == {b"raw/a.dat": b"a"}, within=60)
    assert "finished what was in flight" in walk.step()
    write_file(there / "archive/storage", b"old.dat", b"old")
    assert ", 0 FAIL" in walk.step()
    write_file(there / "archive/buffer", b"b.dat", b"b")
    eventually(lambda: files_below(there / "archive/storage").keys() == {b"old.dat", b"b.dat"}, within=60)
    assert "BACKFILL" in walk.step()


# operations.md


@pytest.fixture
def archive(sites: Sites) -> Archive:
    """The endpoint manager's side of the sites."""
    archive = Archive(sites.directory / "endpoint")
    archive.write_config()
    return archive


def mean(walk: Walk, sites: Sites, archive: Archive) -> None:
    """Let what stands in capitals mean the sites', and the `~` of ssh's programs their sshd's directory."""
    sshd = sites.sshd
    sites.write_config(general={"retry": {"attempts": 1}})
    config = walk.home / "ssh_config"
    config.write_text(f"UserKnownHostsFile {sshd.known_hosts}\nIdentityFile {sshd.identity}\n")
    walk.words |= {
        "PATH": FILE.decode(),
        "HOST": sshd.host,
        "PORT": str(sshd.port),
        "ssh -p PORT USER@HOST": f"ssh -F {config} -p {sshd.port} {user()}@{sshd.host}",
        "~/.ssh/known_hosts": str(sshd.known_hosts),
        "/etc/ssh/ssh_host_ed25519_key.pub": f"{sshd.directory}/id_host.pub",
    }
    walk.here |= {
        "CONFIG": str(sites.config),
        "BUFFER": str(sites.buffer),
        "HOLDING": str(sites.holding),
        "LEDGER": str(sites.ledger),
        "LOG": str(sites.ledger.with_suffix(".log")),
    }
    walk.there |= {
        "CONFIG": str(archive.config),
        "BUFFER": str(archive.buffer),
        "STORAGE": str(archive.storage),
        "LEDGER": str(archive.ledger),
        "CATALOGUE": str(archive.catalogue),
    }


@follows(
    "operations.md",
    *("At 3 a.m.", "A conflict at the endpoint's buffer", "Ours has it", "Theirs has it"),
)
def test_a_conflict_is_decided_for_ours_and_for_theirs(walk: Walk, sites: Sites, archive: Archive) -> None:
    mean(walk, sites, archive)
    for path in (FILE, b"night1/b.dat"):
        write_file(sites.endpoint_buffer, path, b"theirs")
        write_file(sites.buffer, path, b"ours")
    with Run(sites):
        eventually(lambda: counts(sites) == {"conflict": 2})
        assert "other content has its name" in walk.step(failing={"hdfmgr check": 5})
        assert "the endpoint's buffer has other content of this name" in walk.step()
        walk.step()
        assert "1 file to try again" in walk.step()
        eventually(lambda: states(sites, FILE) == ["held"])
        walk.words["PATH"] = "night1/b.dat"
        walk.step()
        eventually(lambda: states(sites, b"night1/b.dat") == ["vanished"])
        eventually(lambda: states(sites, b"night1/b.dat.ours") == ["held"])
    assert (walk.endpoint_home / "a.dat").read_bytes() == b"theirs"
    assert files_below(sites.endpoint_buffer) == {
        FILE: b"ours",
        b"night1/b.dat": b"theirs",
        b"night1/b.dat.ours": b"ours",
    }


@follows(
    "operations.md",
    *("The manager is not running", "Files wait and nothing moves", "A pause", "A changed configuration"),
    "Where to look further",
)
def test_what_killed_stopped_or_held_up_a_manager_is_found_and_mended(
    walk: Walk, sites: Sites, archive: Archive
) -> None:
    mean(walk, sites, archive)
    write_file(sites.endpoint_buffer, FILE, b"theirs")
    write_file(sites.buffer, FILE, b"ours")
    excluded = write_file(sites.buffer, b"night1/a.dat.tmp", b"half of it")
    assert walk.step() == ""
    assert f"engine: sqlite:///{sites.ledger}" in walk.step()
    eventually(lambda: counts(sites) == {"conflict": 1})
    walk.words["PATH"] = "night1/a.dat.tmp"
    assert "of exclude_list fits it" in walk.step(failing={"hdfmgr history": 1})
    away = sites.holding.with_name("away")
    sites.holding.rename(away)
    os.rename(excluded, sites.buffer / "night1/b.dat")
    eventually(lambda: "paused" in sites.command("status", sites.config).stdout.decode())
    assert "mount it" in walk.step(failing={"hdfmgr check": 4})
    away.rename(sites.holding)
    eventually(lambda: counts(sites) == {"conflict": 1, "held": 1}, within=60)
    assert "is valid" in walk.step()
    assert "conflict: night1/a.dat: " in walk.step()


@follows("operations.md", "The endpoint is unreachable", "The host key")
def test_an_endpoint_that_is_gone_and_comes_back_with_another_host_key_is_reached_again(
    walk: Walk, tmp_path: Path, own_sshd: Sshd
) -> None:
    sites = Sites(tmp_path / "sites", own_sshd)
    mean(walk, sites, Archive(sites.directory / "endpoint"))
    own_sshd.stop()
    write_file(sites.buffer, FILE, b"light")
    with Run(sites) as manager:
        eventually(lambda: "connection refused" in manager.said)
        assert "Connection refused" in walk.step(failing={"ssh -F": 255, "hdfmgr check": 4})
        own_sshd.renew_host_key()
        own_sshd.start()
        eventually(lambda: "host key changed" in manager.said, within=60)
        fingerprints, shown = walk.step(), walk.step()
        assert shown.split()[1] in fingerprints
        assert " 0 FAIL" in walk.step(failing={"hdfmgr check": 5})
        eventually(lambda: states(sites, FILE) == ["held"], within=60)
        assert manager.stop() == 0


@follows(
    "operations.md",
    *("A conflict in storage", "The newcomer has the right to the name", "The stored one has it", "Rejected"),
)
def test_a_conflict_in_storage_and_a_rejected_file_are_decided(
    walk: Walk, sites: Sites, archive: Archive
) -> None:
    mean(walk, sites, archive)
    archive.deliver({FILE: b"stored", b"night1/b.dat": b"stored"}, note="old")
    assert archive.once() == 0
    archive.deliver({FILE: b"newcomer", b"night1/b.dat": b"newcomer"}, note="new")
    with Run(archive):
        eventually(lambda: counts(archive) == {"ingested": 2, "conflict": 2})
        assert "has other content; neither was touched" in walk.step()
        assert "1 file to try again" in walk.step()
        eventually(lambda: states(archive, FILE) == ["ingested", "conflict"])
        assert "1 file to try again" in walk.step()
        eventually(lambda: states(archive, FILE) == ["ingested", "ingested"])
        walk.words["PATH"] = "night1/b.dat"
        walk.step()
        eventually(lambda: states(archive, b"night1/b.dat") == ["ingested", "vanished"])
    assert files_below(archive.storage) == {FILE: b"newcomer", b"night1/b.dat": b"stored"}
    walk.words["PATH"] = "night1/c.dat"
    write_file(sites.buffer, b"night1/c.dat", b"true")
    with Run(sites):
        eventually(lambda: states(sites, b"night1/c.dat") == ["held"])
        (archive.buffer / "night1/c.dat").write_bytes(b"false")
        with Run(archive):
            eventually(lambda: states(archive, b"night1/c.dat") == ["rejected"])
            walk.step()
            walk.step()
            eventually(lambda: states(archive, b"night1/c.dat") == ["rejected", "ingested"])
            walk.step()
            eventually(lambda: states(archive, b"night1/c.dat") == ["vanished", "ingested"])
    assert (archive.storage / "night1/c.dat").read_bytes() == b"true"


@follows("operations.md", "Failed")
def test_files_that_failed_are_tried_again_alone_by_cause_and_all(
    walk: Walk, sites: Sites, archive: Archive
) -> None:
    mean(walk, sites, archive)
    paths = (FILE, b"night1/b.dat", b"night1/c.dat")
    for path in paths:
        write_file(sites.buffer, path, b"light")
        (sites.endpoint_buffer / path.decode()).mkdir(parents=True)
    assert sites.command("start", sites.config, "--once").exit_code == 3
    for path in paths:
        (sites.endpoint_buffer / path.decode()).rmdir()
    said = walk.step()
    assert "name taken at the endpoint" in said
    assert re.findall(r"(\d) files? to try again", said) == ["1", "2", "0"]
    assert sites.command("start", sites.config, "--once").exit_code == 0
    assert counts(sites) == {"held": 3}


@follows("operations.md", "A disk is filling", "Exit 11: a new ledger")
def test_room_is_made_on_both_sides_and_a_ruined_ledger_is_put_aside(
    walk: Walk, sites: Sites, archive: Archive
) -> None:
    mean(walk, sites, archive)
    old, new = write_file(sites.buffer, FILE, b"old"), write_file(sites.buffer, b"night1/b.dat", b"new")
    os.utime(old, (0, 0))
    with Run(sites):
        eventually(lambda: counts(sites) == {"held": 2})
        assert "0 FAIL" in walk.step()
    assert (files_below(sites.holding), os.path.exists(new)) == ({b"night1/b.dat": b"new"}, False)
    assert archive.once() == 0
    with Run(archive):
        archive.write_config(cleaner={"directories": [str(archive.storage)], "files_older_than": "1ms"})
        assert "0 FAIL" in walk.step()
    eventually(lambda: files_below(archive.storage) == {})
    assert archive.command("stop", archive.config).exit_code == 0
    write_file(archive.storage, FILE, b"stored")
    for managed in (sites, archive):
        managed.ledger.write_bytes(b"ruined" * 1000)
        assert managed.command("status", managed.config).exit_code == 11
    archive.write_config()
    assert walk.step() == ""
    assert "1 file" in walk.step()
    assert counts(archive) == {"backfilled": 1}
    assert (walk.home / "ruined/ledger.db").exists()


# containers.md


def test_docker_compose_understands_every_command_of_the_containers_page() -> None:
    text = "".join(block.text for block in blocks("containers.md"))
    commands = re.findall(r"^docker-compose [^#\n]*", text, re.MULTILINE)
    assert commands
    for command in commands:
        # There is no daemon; a wrong command, option or file is complained of before it is missed.
        nowhere = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
        done = run(["bash", "-c", f". ./env.bash && {command}"], env=nowhere, cwd=REPOSITORY, timeout=60)
        said = (done.stdout + done.stderr).decode()
        assert re.search("DockerException: Error while fetching|Cannot connect to the Docker daemon", said), (
            said
        )
    named = set(re.findall(r"local/etc/(\S+)", text))
    assert named <= {path.name for path in (REPOSITORY / "handoff/etc").iterdir()}


@follows("containers.md", "From a container to systemd or cron")
def test_what_a_container_has_begun_goes_on_without_it(walk: Walk, own_sshd: Sshd) -> None:
    here, there = settle_down(walk, own_sshd)
    place, arrived = here / "srv/dbb/auxtel", there / "archive"
    for directory in (place / "data/holding", place / "ledger", arrived / "buffer", arrived / "staging"):
        directory.mkdir(parents=True)
    (place / "ssh").mkdir()
    shutil.copy(own_sshd.identity, place / "ssh/id_ed25519")
    shutil.copy(own_sshd.known_hosts, place / "ssh")
    example = (REPOSITORY / "handoff/etc/at_dbbbm_config.yaml").read_text()
    example = example.replace("/srv/dbb/auxtel/data", str(arrived))
    inside = walk.home / "at_dbbbm_config.yaml"
    inside.write_text(replaced(example, {f"host: {HOST}": walk.words[f"host: {HOST}"]}))
    # What is typed names the places inside, too; and there is no daemon.
    walk.here = {name: f"{here}{name}" for name in ("/srv", "/etc/dbb")}
    walk.here |= {
        f"handoff/etc/{inside.name}": str(inside),
        "docker-compose rm --stop --force at-dbbbm": "true",
    }
    before = walk.home / "before.yaml"  # as it works where /data is the host's
    before.write_text(
        f"handoff: {{buffer: {place}/data/buffer, holding: {place}/data/holding}}\n"
        f"endpoint: {{host: {own_sshd.host}, buffer: {arrived}/buffer, staging: {arrived}/staging,"
        f" ssh: {own_sshd.ssh_section()}}}\n"
        f"database: {{engine: 'sqlite:///{place}/ledger/at_dbbbm_config.db'}}\n"
    )
    write_file(place / "data/buffer", FILE, b"by the container")
    once(walk, "hdfmgr", str(before))
    walk.step()
    walk.step()
    said = walk.step(failing={"hdfmgr check": 4})
    assert "● not running" in said
    assert ", 1 FAIL" in said
    write_file(place / "data/buffer", b"night1/b.dat", b"without it")
    once(walk, "hdfmgr", str(here / "etc/dbb/auxtel.yaml"))
    assert files_below(place / "data/holding") == {FILE: b"by the container", b"night1/b.dat": b"without it"}
    assert [ledger.name for ledger in walk.directory.rglob("*.db")] == ["at_dbbbm_config.db"]


# All of them

REFERENCES = ("catalogues.md", "configuration.md", "design.md", "endpoint.md", "index.md")
"""Pages that nobody follows from their beginning to their end."""
HOW_TOS = ["README.md", *sorted({path.name for path in DOCS.glob("*.md")} - set(REFERENCES))]
ELSEWHERE = {
    ("README.md", "Try it"): "tests/acceptance/test_demo.py",
    # docker-compose wants a daemon. That it takes its commands is seen above; what they begin, and all that
    # comes before, is run in containers that buildah makes of what `docker-compose config` says.
    ("containers.md", "A first deployment at the handoff site"): "tests/containers/test_containers.py",
    ("containers.md", "Every day"): "tests/containers/test_containers.py",
    ("containers.md", "Another instrument"): "tests/acceptance/test_compose.py",
    ("containers.md", "The endpoint manager"): "tests/containers/test_containers.py",
    **{
        (page, heading): "tests/containers/test_machines.py"
        for page, headings in MACHINES.items()
        for heading in headings
    },
}
"""Commands that aren't run here, by their page and heading, and the test that runs them."""
FOREGROUND = {("hdfmgr start", ""), ("endmgr start", "")}
"""What never ends by itself; it is what a `Run` runs."""


def test_every_command_of_the_how_tos_is_run() -> None:
    commands = {(block.page, block.heading) for page in HOW_TOS for block in blocks(page)}
    assert commands == FOLLOWED | set(ELSEWHERE)
    assert [place for place in ELSEWHERE.values() if not (REPOSITORY / place).is_file()] == []


@pytest.mark.parametrize("page", HOW_TOS)
def test_a_command_within_a_sentence_is_one_of_those_that_are_run(page: str) -> None:
    typed = {shape for how_to in HOW_TOS for block in blocks(how_to) for shape in shapes(block.text)}
    spans = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page)))
    named = {shape for span in spans for shape in shapes(span)}
    assert named - typed - FOREGROUND == set()


def shapes(text: str) -> set[tuple[str, str]]:
    """The commands of ours in a text: the program with its verb, and the options, in their order."""
    commands = re.findall(r"\b((?:hdf|end)mgr [a-z]+)\b(.*)", text)
    return {(command, " ".join(re.findall(r" (--[a-z-]+)", rest))) for command, rest in commands}
