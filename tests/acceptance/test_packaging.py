"""The distributions hold what they should, and the installed commands run far from the checkout."""

import re
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import common
from common.process import Completed, run

REPOSITORY = Path(__file__).parents[2]

# One group: built once, although the suite runs in several processes.
pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]


def finished(*argv: str | Path, cwd: Path = REPOSITORY, env: Mapping[str, str] | None = None) -> Completed:
    """Run a command that has to succeed."""
    done = run([str(arg) for arg in argv], cwd=cwd, env=env, timeout=240)
    assert done.exit_code == 0, (done.stdout + done.stderr).decode()
    return done


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of this checkout, and the wheel that is built from it."""
    directory = tmp_path_factory.mktemp("dist")
    finished(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory)
    (sdist,), (wheel,) = directory.glob("*.tar.gz"), directory.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def bin_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are once `pipx install .` was given, by a user who had nothing of pipx's before."""
    home = tmp_path_factory.mktemp("home")
    # What pip and its index need may be in the user's own configuration.
    environment = {f"PIPX_{name}": str(home / name.lower()) for name in ("HOME", "BIN_DIR", "MAN_DIR")}
    finished(sys.executable, "-m", "pipx", "install", ".", env=environment)
    return home / "bin_dir"


def content(wheel: Path) -> dict[str, bytes]:
    """Every file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata(wheel: Path) -> Message:
    """What a package index reads."""
    (told,) = (text for name, text in content(wheel).items() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(told)


def test_the_distributions_pass_the_checks_of_a_package_index(distributions: tuple[Path, Path]) -> None:
    finished(sys.executable, "-m", "twine", "check", "--strict", *distributions)
    finished(sys.executable, "-m", "check_wheel_contents", distributions[1])


def test_the_wheel_holds_every_file_of_the_packages(distributions: tuple[Path, Path]) -> None:
    sources = {
        str(path.relative_to(REPOSITORY))
        for package in ("common", "handoff", "endpoint")
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    held = {name for name in content(distributions[1]) if ".dist-info/" not in name}
    assert held == sources
    assert {".sql", ".sh", ".py"} <= {Path(name).suffix for name in held}


def test_the_sdist_builds_the_wheel_that_the_checkout_builds(
    distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    finished(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == distributions[1].name
    assert content(wheel) == content(distributions[1])


def test_the_version_is_told_by_one_line_of_the_sources(distributions: tuple[Path, Path]) -> None:
    assert metadata(distributions[1])["Version"] == common.__version__
    assert distributions[0].name == f"dbb_buffer_managers-{common.__version__}.tar.gz"


def test_the_extra_for_a_butler_brings_what_the_project_says(distributions: tuple[Path, Path]) -> None:
    told = metadata(distributions[1])
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extra = {
        re.sub(r" *; *extra == .butler.$", "", line)
        for line in told.get_all("Requires-Dist", [])
        if "extra ==" in line
    }
    assert told.get_all("Provides-Extra") == ["butler"]
    assert {line.lower() for line in extra} == {
        line.lower() for line in project["optional-dependencies"]["butler"]
    }


@pytest.mark.parametrize("command", ["hdfmgr", "endmgr"])
def test_an_installed_command_tells_its_version_and_helps(
    command: str, bin_directory: Path, tmp_path: Path
) -> None:
    told = finished(bin_directory / command, "--version", cwd=tmp_path)
    assert common.__version__ in told.stdout.decode()
    assert command in finished(bin_directory / command, "--help", cwd=tmp_path).stdout.decode()


def test_the_installed_common_is_ours(bin_directory: Path, tmp_path: Path) -> None:
    code = (
        "from importlib.metadata import packages_distributions as owners\n"
        "import common\n"
        "print(owners()['common'], common.__file__)"
    )
    python = (bin_directory / "hdfmgr").resolve().with_name("python")
    told = finished(python, "-c", code, cwd=tmp_path).stdout.decode()
    assert told.startswith("['dbb-buffer-managers'] ")
    assert str(bin_directory.parent) in told
