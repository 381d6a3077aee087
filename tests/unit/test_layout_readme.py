"""What the README shows of the code is what the code says."""

from pathlib import Path

import pytest

from common.errors import ConfigError, DbbError, LedgerError
from handoff.lifecycle import LIFECYCLE

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_diagram_of_the_handoff_states_is_the_declared_one() -> None:
    shown = README.partition("<!-- lifecycle:handoff -->")[2].partition("<!-- /lifecycle:handoff -->")[0]
    assert shown.strip() == f"```mermaid\n{LIFECYCLE.diagram()}\n```"


@pytest.mark.parametrize("error", [DbbError, ConfigError, LedgerError])
def test_the_table_has_every_error_s_exit_code(error: type[DbbError]) -> None:
    assert f"\n| {error.exit_code} | " in README
