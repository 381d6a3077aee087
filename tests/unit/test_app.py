"""A path on the command line is a file's, however it is named; and help costs next to nothing."""

import os
import sys
from pathlib import Path

import pytest

from common.app import Places, relative_path
from common.errors import DbbError
from common.process import run

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in ("buffer", "holding"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("buffer")
    return Places((os.fsencode(tmp_path / "buffer"), os.fsencode(tmp_path / "holding")), {})


@pytest.mark.parametrize(
    ("named", "path"),
    [
        ("a/b.fits", b"a/b.fits"),
        ("./a//b.fits", b"a/b.fits"),
        ("a/", b"a"),
        ("-a b\n", b"-a b\n"),
        ("\udcff", b"\xff"),
        ("{}/buffer/a/b.fits", b"a/b.fits"),
        ("{}/holding/a/../b.fits", b"b.fits"),
        ("{}/link/b.fits", b"b.fits"),
        ("{}/buffer/\udcff", b"\xff"),
    ],
)
def test_a_path_may_be_relative_to_the_buffer_or_absolute_below_a_directory(
    places: Places, tmp_path: Path, named: str, path: bytes
) -> None:
    assert relative_path(named.replace("{}", str(tmp_path)), places) == path


@pytest.mark.parametrize("named", ["/elsewhere/a.fits", "{}/buffers/a.fits", "{}/buffer", "../a.fits"])
def test_a_path_elsewhere_is_refused(places: Places, tmp_path: Path, named: str) -> None:
    with pytest.raises(DbbError, match="does not lie below"):
        relative_path(named.replace("{}", str(tmp_path)), places)


@pytest.mark.parametrize("module", ["handoff.cli", "endpoint.cli"])
def test_importing_the_commands_imports_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(sys.modules))"
    done = run([sys.executable, "-c", program], cwd=REPOSITORY)
    assert done.exit_code == 0, done.stderr
    assert not {"pydantic", "rich", "yaml", "sqlite3", "psutil", "multiprocessing"} & set(
        done.stdout.decode().split()
    )


@pytest.mark.parametrize("module", ["handoff.__main__", "endpoint.__main__"])
def test_importing_the_main_modules_imports_nothing_at_all(module: str) -> None:
    program = f"import sys; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    done = run([sys.executable, "-c", program], cwd=REPOSITORY)
    package = module.partition(".")[0]
    assert set(done.stdout.decode().split()) == {package, module}
