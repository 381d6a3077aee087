"""What an operator is told to do fits the state, the cause and the number of files."""

import pytest

from common.advice import advice


@pytest.mark.parametrize(
    ("state", "cause", "is_due", "single", "told"),
    [
        ("found", "", False, False, ""),
        (
            "failed",
            "can't be read",
            True,
            False,
            "let the manager's account read it; it is tried again by itself, "
            "or at once by `hdfmgr retry a.yaml --cause $'can\\'t be read'`",
        ),
        ("failed", "new", False, True, "mend the reason, then `hdfmgr retry a.yaml 'a b'`"),
        (
            "conflict",
            "conflict",
            False,
            False,
            "other content has its name: compare the two (`hdfmgr history a.yaml 'a b'`), "
            "and move one of them away, then `hdfmgr retry a.yaml --cause conflict`",
        ),
    ],
)
def test_advice_ends_with_the_command_to_be_typed(
    state: str, cause: str, is_due: bool, single: bool, told: str
) -> None:
    assert advice("hdfmgr", "a.yaml", state, cause, is_due=is_due, example=b"a b", single=single) == told
