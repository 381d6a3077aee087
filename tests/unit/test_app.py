"""A path on the command line is a file's, however it is named; and help costs next to nothing."""

import os
import re
import sys
from pathlib import Path

import pytest

import endpoint.cli
import handoff.cli
from common import __version__
from common.app import Places, execute, frame, relative_path, run
from common.errors import DbbError
from common.process import run as run_program

VERBS = ("start", "stop", "status", "retry", "history", "check", "validate", "run", "initdb")
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


def _run(capsys: pytest.CaptureFixture[str], program: str, *words: str) -> tuple[int, str, str]:
    """A command line's exit code and what it prints."""
    with pytest.raises(SystemExit) as ended:
        run(handoff.cli.kind(), words) if program == "hdfmgr" else run(endpoint.cli.kind(), words)
    assert isinstance(ended.value.code, int)
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "hdfmgr", "--help")
    assert code == 0
    for verb in VERBS:
        assert re.search(rf"^\W*{verb} +\w", out, re.MULTILINE), verb


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_has_an_example(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, out, _ = _run(capsys, "hdfmgr", verb, "--help")
    assert code == 0
    assert f"Example: hdfmgr {verb} handoff.yaml" in out


def test_help_shows_no_type_beside_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((), ("status",), ("start",)):
        assert "<bool>" not in _run(capsys, "hdfmgr", *words, "--help")[1]
    assert "Usage: hdfmgr status [OPTIONS] CONFIG " in _run(capsys, "hdfmgr", "status", "--help")[1]


@pytest.mark.parametrize("program", ["hdfmgr", "endmgr"])
def test_the_version_is_told(capsys: pytest.CaptureFixture[str], program: str) -> None:
    assert _run(capsys, program, "--version") == (0, f"{program} {__version__}\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("start",),
        ("status", "a.yaml", "--nonsense"),
        ("stop", "a.yaml", "--timeout", "-1"),
        ("start", "a.yaml", "--daemon", "--once"),
        ("status", "a.yaml", "--failed", "--watch"),
        ("status", "a.yaml", "--cause", "x"),
    ],
)
def test_wrong_usage_is_exit_2(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    code, out, err = _run(capsys, "hdfmgr", *words)
    assert (code, out) == (2, "")
    assert "Usage: hdfmgr" in err


def test_an_unforeseen_fault_is_told_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    app = frame("hdfmgr", "")

    @app.command()
    def break_down(debug: bool = False) -> None:
        raise KeyError("what is this")

    with pytest.raises(SystemExit) as ended:
        execute("hdfmgr", app, ["break-down"])
    err = capsys.readouterr().err
    assert ended.value.code == 1
    assert err.startswith("hdfmgr: unexpected KeyError: 'what is this'\n  hint: ")
    with pytest.raises(SystemExit):
        execute("hdfmgr", app, ["break-down", "--debug"])
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["handoff.cli", "endpoint.cli"])
def test_importing_the_commands_imports_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(sys.modules))"
    done = run_program([sys.executable, "-c", program], cwd=REPOSITORY)
    assert done.exit_code == 0, done.stderr
    assert not {"pydantic", "rich", "yaml", "sqlite3", "psutil", "multiprocessing"} & set(
        done.stdout.decode().split()
    )


@pytest.mark.parametrize("module", ["handoff.__main__", "endpoint.__main__"])
def test_importing_the_main_modules_imports_nothing_at_all(module: str) -> None:
    program = f"import sys; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    done = run_program([sys.executable, "-c", program], cwd=REPOSITORY)
    package = module.partition(".")[0]
    assert set(done.stdout.decode().split()) == {package, module}
