"""The start that cron calls every minute costs nothing while a manager runs, and takes nothing amiss."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.cron import has_nothing_to_do
from common.ledger.lock import ManagerLock
from common.process import run

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "handoff.yaml"
    path.write_text("database: {engine: 'sqlite:///ledger.db'}\n")
    return path


@pytest.fixture
def held(config: Path) -> Iterator[Path]:
    """The configuration of a ledger that is held."""
    with ManagerLock(config.parent / "ledger.db"):
        yield config


@pytest.mark.parametrize(
    "words",
    [
        ("start", "CONFIG", "--daemon", "--quiet"),
        ("start", "--daemon", "--quiet", "CONFIG"),
        ("run", "CONFIG", "--quiet"),
    ],
)
def test_a_quiet_start_has_nothing_to_do_while_a_manager_runs(held: Path, words: tuple[str, ...]) -> None:
    assert has_nothing_to_do([word.replace("CONFIG", str(held)) for word in words])


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("start", "CONFIG"),
        ("start", "CONFIG", "--daemon"),
        ("start", "--quiet"),
        ("start", "CONFIG", "CONFIG", "--quiet"),
        ("start", "CONFIG", "--quiet", "--nonsense"),
        ("start", "CONFIG", "--quiet", "--help"),
        ("stop", "CONFIG", "--quiet"),
        ("--debug", "start", "CONFIG", "--quiet"),
        ("start", "NOWHERE", "--quiet"),
    ],
)
def test_any_other_command_line_is_left_to_the_commands(held: Path, words: tuple[str, ...]) -> None:
    assert not has_nothing_to_do([word.replace("CONFIG", str(held)) for word in words])


def test_a_start_has_something_to_do_where_no_manager_runs(config: Path) -> None:
    assert not has_nothing_to_do(["start", str(config), "--quiet"])


def test_what_is_wrong_with_a_configuration_is_left_to_be_told(held: Path) -> None:
    held.write_text("database: {engine: 'oracle://x'}\n")
    assert not has_nothing_to_do(["start", str(held), "--quiet"])
    held.write_text("[")
    assert not has_nothing_to_do(["start", str(held), "--quiet"])


def test_the_question_imports_nothing_that_is_slow(held: Path) -> None:
    program = "import sys; from handoff.__main__ import main; main();print(*sorted(sys.modules))"
    done = run([sys.executable, "-c", program, "start", str(held), "--daemon", "--quiet"], cwd=REPOSITORY)
    assert done.exit_code == 0, done.stderr
    modules = set(done.stdout.decode().split())
    assert "common.cron" in modules
    assert not {"typer", "pydantic", "rich", "sqlite3", "psutil", "asyncio"} & modules
