"""The distributions hold what they should, and the installed commands run far from the checkout."""

import sys
import zipfile
from pathlib import Path

import pytest

import common
from common.process import Completed, run

REPOSITORY = Path(__file__).parents[2]

# One group: built once, although the suite runs in several processes.
pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]


def finished(*argv: str | Path, cwd: Path = REPOSITORY) -> Completed:
    """Run a command that has to succeed."""
    done = run([str(arg) for arg in argv], cwd=cwd, timeout=240)
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
def bin_directory(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are once the wheel is installed into a fresh environment."""
    environment = tmp_path_factory.mktemp("environment")
    finished(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    finished(sys.executable, "-m", "pip", "--python", python, "install", "-qq", distributions[1])
    return python.parent


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
    with zipfile.ZipFile(distributions[1]) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == sources
    assert {".sql", ".sh", ".py"} <= {Path(name).suffix for name in held}


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
    told = finished(bin_directory / "python", "-c", code, cwd=tmp_path).stdout.decode()
    assert told.startswith("['dbb-buffer-managers'] ")
    assert str(bin_directory.parent) in told
