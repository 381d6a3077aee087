"""The original's words are those of the documentation, and each state has one."""

import re
from pathlib import Path

import pytest

from endpoint.lifecycle import LIFECYCLE
from endpoint.words import WORDS, original, states

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "endpoint.md"


@pytest.mark.parametrize("state", LIFECYCLE.states)
def test_every_state_has_a_word(state: str) -> None:
    assert original(state) in WORDS
    assert state in states(original(state))


@pytest.mark.parametrize(
    ("state", "cause", "word"),
    [
        ("arrived", "", "UNTRIED"),
        ("stored", "", "UNTRIED"),
        ("ingesting", "", "PENDING"),
        ("ingested", "", "SUCCESS"),
        ("failed", "ingestion failed", "FAILURE"),
        ("failed", "invalid", "INVALID"),
        ("failed", "crashed", "UNKNOWN"),
        ("failed", "catalogue in doubt", "UNKNOWN"),
        ("ingested", "invalid", "SUCCESS"),
        ("backfilled", "", "BACKFILL"),
    ],
)
def test_the_word_for_a_state_and_its_cause(state: str, cause: str, word: str) -> None:
    assert original(state, cause) == word


def test_the_table_in_the_documentation_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `[A-Z]+` \|.*", DOCUMENTATION.read_text(), re.MULTILINE)
    assert rows == [
        f"| `{word}` | {', '.join(f'`{state}`' for state in states(word))} | {meaning} |"
        for word, meaning in WORDS.items()
    ]
