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
    "handoff.visit",
]


@pytest.mark.parametrize("package", [common, endpoint, handoff], ids=lambda package: package.__name__)
def test_a_package_is_the_one_of_this_checkout(package: object) -> None:
    file = getattr(package, "__file__", None)
    assert file is not None
    assert Path(file).parent.parent == REPOSITORY


@pytest.mark.parametrize("module", LIGHT)
def test_what_a_worker_imports_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=30)
    assert done.exit_code == 0, done.stderr.decode()
    assert HEAVY.isdisjoint(done.stdout.decode().split())
