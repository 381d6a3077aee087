"""What the README shows of the code is what the code says."""

from pathlib import Path

import pytest

from common.errors import ConfigError, DbbError, LedgerError
from common.lifecycle import Lifecycle
from endpoint.lifecycle import LIFECYCLE as ENDPOINT
from handoff.lifecycle import LIFECYCLE as HANDOFF

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.parametrize("lifecycle", [HANDOFF, ENDPOINT], ids=lambda lifecycle: lifecycle.manager)
def test_the_diagram_of_the_states_is_the_declared_one(lifecycle: Lifecycle) -> None:
    mark = f"lifecycle:{lifecycle.manager} -->"
    shown = README.partition(f"<!-- {mark}")[2].partition(f"<!-- /{mark}")[0]
    assert shown.strip() == f"```mermaid\n{lifecycle.diagram()}\n```"


@pytest.mark.parametrize("error", [DbbError, ConfigError, LedgerError])
def test_the_table_has_every_error_s_exit_code(error: type[DbbError]) -> None:
    assert f"\n| {error.exit_code} | " in README
