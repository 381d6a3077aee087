"""`env.bash` sets up a machine by itself, tells what it lacks, and is safe to source."""

import os
import pwd
import shutil
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import pytest

from common import __version__
from common.process import Completed, run

REPOSITORY = Path(__file__).parents[2]
EXPORTED = {"MNGR_VER", "TAG", "USR_NAME", "USR_ID", "GRP_ID", "LSST_VER"}
# What a bare machine has, as far as env.bash uses it; sshd is found beside, in /usr/sbin.
BARE = (
    "bash cat cksum cut dirname env head mktemp nproc paste python3 rm sed sort tail "
    "buildah busybox csh debootstrap docker-compose fish openssl scp sqlite3 ssh ssh-keygen "
    "systemd-analyze tmux zsh"
)

# One group: a checkout is set up once, although the suite runs in several processes.
pytestmark = [pytest.mark.xdist_group("env.bash"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, without what `env.bash` makes, in a directory with an awkward name."""
    copy = tmp_path_factory.mktemp("env") / "a fresh 'clone'"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "dist")
    shutil.copytree(REPOSITORY, copy, ignore=ignored)
    return copy


@pytest.fixture(scope="module")
def checkout(fresh: Path) -> Path:
    """The copy, set up by its first run."""
    done = run(["bash", str(fresh / "env.bash"), "test", "--version"], timeout=240)
    assert done.exit_code == 0, done.stderr.decode()
    assert [line.split(" with ")[0] for line in done.stderr.decode().splitlines()] == [
        "env.bash: making .venv",
        "env.bash: installing Python packages into .venv",
    ]
    return fresh


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A directory of programs, to be the whole PATH: all that is needed except rsync."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in BARE.split():
        found = shutil.which(name)
        assert found, f"{name} is not installed"
        (directory / name).symlink_to(found)
    stand_in(directory / "id", "echo 0")
    return directory


def stand_in(path: Path, script: str) -> None:
    """An executable that takes a program's place."""
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


def env_bash(checkout: Path, *args: str, path: Path | None = None) -> Completed:
    argv = ["bash", str(checkout / "env.bash"), *args]
    return run(argv, timeout=120, env={"PATH": str(path or os.environ["PATH"])}, cwd=Path("/"))


def test_a_machine_that_has_everything_is_ready_within_a_second(checkout: Path) -> None:
    # Processor time, since the machine may be busy with the rest of the suite.
    before = getrusage(RUSAGE_CHILDREN)
    done = env_bash(checkout, "test", "--version")
    after = getrusage(RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    assert (done.exit_code, done.stderr) == (0, b"")
    assert b"pytest" in done.stdout


def test_modules_are_compiled_where_python_is_told_to_write_none(checkout: Path) -> None:
    shutil.rmtree(checkout / "handoff" / "__pycache__", ignore_errors=True)
    argv = ["bash", str(checkout / "env.bash"), "test", "--version"]
    assert run(argv, timeout=120, env={"PYTHONDONTWRITEBYTECODE": "1"}).exit_code == 0
    assert list((checkout / "handoff" / "__pycache__").glob("manager.*.pyc"))


def test_arguments_of_test_go_to_pytest(checkout: Path) -> None:
    done = env_bash(checkout, "test", "tests/unit/test_fits.py", "-q", "-k", "same_for_the_same_seed")
    assert done.exit_code == 0, (done.stdout + done.stderr).decode()
    assert b"1 passed" in done.stdout


def test_a_suite_without_tests_is_a_failure(checkout: Path) -> None:
    assert env_bash(checkout, "test", "tests/unit/test_fits.py", "-k", "nothing_like_it").exit_code == 5


def test_a_changed_project_is_installed_again(checkout: Path) -> None:
    with (checkout / "pyproject.toml").open("a") as project:
        project.write("# changed\n")
    done = env_bash(checkout, "test", "--version")
    assert done.exit_code == 0, done.stderr.decode()
    assert done.stderr.decode() == "env.bash: installing Python packages into .venv\n"


def test_a_demo_with_butler_gets_its_packages_once(checkout: Path) -> None:
    (checkout / ".venv" / "butler.stamp").unlink()
    told = [env_bash(checkout, "demo", *args, "--help") for args in ((), ("--butler",), ("--butler",))]
    assert [done.stderr.count(b"env.bash: installing Python packages") for done in told] == [0, 1, 0]


@pytest.mark.parametrize("args", [(), ("tset",), ("--help",)])
def test_anything_else_is_answered_with_the_usage(args: tuple[str, ...]) -> None:
    done = env_bash(REPOSITORY, *args)
    assert (done.exit_code, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"Usage: bash env.bash demo")


def test_without_a_package_manager_it_names_what_is_missing(checkout: Path, bare: Path) -> None:
    done = env_bash(checkout, "demo", path=bare)
    assert (done.exit_code, done.stdout) == (1, b"")
    assert done.stderr.decode() == (
        "env.bash: missing: rsync. There is no apt-get here: "
        "install them in this system's own way, then try again.\n"
    )


def test_without_rights_it_names_what_is_missing_and_the_command(checkout: Path, bare: Path) -> None:
    (bare / "scp").unlink()
    stand_in(bare / "id", "echo 1000")
    stand_in(bare / "sudo", "echo 'sudo: a password is required' >&2; exit 1")
    stand_in(bare / "apt-get", "exit 1")
    done = env_bash(checkout, "test", path=bare)
    assert (done.exit_code, done.stdout) == (1, b"")
    first, command = done.stderr.decode().splitlines()
    assert first.startswith("env.bash: missing: rsync scp. No right to install")
    assert command.split("&& ")[1] == ("sudo apt-get install --no-install-recommends openssh-client rsync")


@pytest.mark.parametrize(("user", "prefix"), [("0", ""), ("1000", "sudo ")])
def test_what_is_missing_is_installed(
    user: str, prefix: str, checkout: Path, bare: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    stand_in(bare / "id", f"echo {user}")
    stand_in(bare / "sudo", f'shift; [ "$1" = true ] || printf "sudo " >>{log}; exec "$@"')
    rsync = shutil.which("rsync")
    stand_in(
        bare / "apt-get",
        f'echo "${{@:4}}" >>{log}; [ "$4" = update ] || {shutil.which("ln")} -s {rsync} {bare}/rsync',
    )
    stand_in(bare / "true", "exit 0")
    done = env_bash(checkout, "test", "--version", path=bare)
    assert done.exit_code == 0, done.stderr.decode()
    assert log.read_text() == f"{prefix}update\n{prefix}install --no-install-recommends rsync\n"
    assert done.stderr.decode().splitlines() == [
        "env.bash: missing: rsync",
        "env.bash: apt-get update",
        "env.bash: apt-get install rsync",
    ]


def test_a_failed_installation_shows_why(checkout: Path, bare: Path) -> None:
    stand_in(bare / "apt-get", "echo 'E: Unable to locate package'; exit 100")
    done = env_bash(checkout, "test", "--version", path=bare)
    assert done.exit_code == 1
    assert done.stderr.decode().splitlines()[-2:] == [
        "E: Unable to locate package",
        "env.bash: apt-get install failed",
    ]


def sourced(shell: str, script: str, *, env: dict[str, str] | None = None) -> str:
    """What a script prints in a new shell whose variable E is the file's path."""
    settings = {
        "E": str(REPOSITORY / "env.bash"),
        "USER": "whoever",
        "PATH": os.environ["PATH"],
        **(env or {}),
    }
    assignments = [f"{name}={value}" for name, value in settings.items()]
    done = run(["env", "-i", *assignments, *shell.split(), "-c", script], timeout=20, cwd=Path("/"))
    assert (done.exit_code, done.stderr) == (0, b""), done
    return done.stdout.decode().rstrip("\n")


SHELLS = pytest.mark.parametrize("shell", ["bash", "bash -u", "bash -e", "bash --posix", "zsh", "zsh -u"])


@SHELLS
def test_a_sourced_environment_is_what_docker_compose_reads(shell: str) -> None:
    told = sourced(shell, 'source "$E"; sh -c \'echo "$MNGR_VER $TAG $USR_ID $GRP_ID $LSST_VER $USER"\'')
    assert told == f"{__version__} {__version__} {os.getuid()} {os.getgid()} w_latest whoever"


@SHELLS
def test_sourcing_adds_the_exported_variables_and_nothing_else(shell: str) -> None:
    names = "set | sed -n 's/^\\([A-Za-z_0-9]*\\)=.*/\\1/p' | sort"
    script = f'a=$({names}); o=$(set -o); source "$E"; b=$({names}); p=$(set -o); '
    script += '[ "$o" = "$p" ]; echo $?; echo "$a"; echo ---; echo "$b"; typeset -f'
    same_options, *rest = sourced(shell, script).splitlines()
    before, after = (set(part.split()) for part in " ".join(rest).split("---"))
    volatile = {"a", "o", "p", "b", "_", "BASH_LINENO", "PIPESTATUS", "RANDOM", "SRANDOM", "PPID", "BASHPID"}
    assert same_options == "0"
    assert after - before - volatile == EXPORTED


def test_another_user_for_the_images_is_respected() -> None:
    told = sourced(
        "bash", 'source "$E"; echo $USR_ID:$GRP_ID:$LSST_VER', env={"USR_NAME": "nobody", "LSST_VER": "w_1"}
    )
    user = pwd.getpwnam("nobody")
    assert told == f"{user.pw_uid}:{user.pw_gid}:w_1"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_sourcing_puts_the_commands_on_path_once_and_only_when_they_exist(
    shell: str, checkout: Path, tmp_path: Path
) -> None:
    shutil.copy(REPOSITORY / "env.bash", tmp_path)
    (tmp_path / "common").mkdir()
    shutil.copy(REPOSITORY / "common" / "__init__.py", tmp_path / "common")
    script = 'before=$PATH; source "$E"; source "$E"; echo "${PATH%"$before"}"'
    assert sourced(shell, script, env={"E": str(tmp_path / "env.bash")}) == ""
    assert sourced(shell, script, env={"E": str(checkout / "env.bash")}) == f"{checkout}/.venv/bin:"
