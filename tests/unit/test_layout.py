"""The packages are ours, and what workers import is light."""

import sys
from pathlib import Path

import pytest

import common
import endpoint
import handoff
from common.process import run

REPOSITORY = Path(__file__).parents[2]

# A manager's workers are started anew and import these; each is slow to import or none of their business.
HEAVY = {"typer", "rich", "pydantic", "sqlite3", "yaml"}
LIGHT = [
    "common.entry",
    "common.errors",
    "common.files",
    "common.lifecycle",
    "common.pool",
    "common.process",
    "common.remote",
    "common.retry",
    "common.transport",
    "handoff.__main__",
    "handoff.courier",
    "handoff.holding",
    "handoff.lifecycle",
    "handoff.route",
    "handoff.visit",
]


@pytest.mark.parametrize("package", [common, endpoint, handoff], ids=lambda package: package.__name__)
def test_a_package_is_the_one_of_this_checkout(package: object) -> None:
    file = getattr(package, "__file__", None)
    assert file is not None
    assert Path(file).parent.parent == REPOSITORY


@pytest.mark.parametrize("module", LIGHT)
def test_what_a_worker_imports_is_light(module: str) -> None:
    assert HEAVY.isdisjoint(_imported_with(module))


def test_a_worker_can_log_in_before_it_has_imported_what_it_works_with() -> None:
    assert not {"handoff.courier", "handoff.script", "common.transport"} & _imported_with("handoff.route")


def _imported_with(module: str) -> set[str]:
    """All that is imported by a Python that imports this."""
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=30)
    assert done.exit_code == 0, done.stderr.decode()
    return set(done.stdout.decode().split())
