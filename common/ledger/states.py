"""What the ledger needs to know of a lifecycle's states."""

from collections.abc import Mapping
from dataclasses import dataclass

from common.ledger.rows import FAILED
from common.lifecycle import Lifecycle, Step

MoveRow = tuple[str, str, int, int, int]
"""Source, target, and whether the entry is then in flight, in trouble, settled."""


@dataclass(frozen=True, slots=True)
class States:
    """The states of a lifecycle, sorted by what the verbs do with them."""

    first: Step
    steps: Mapping[str, Step]
    """By working state."""
    unsettled: frozenset[str]
    """Those of entries on their way: waiting for a step, in flight, or failed."""
    trouble: frozenset[str]
    """Those that an entry leaves by `retry` alone (a failed one also when its time has come)."""
    again: frozenset[str]
    """Those from which an entry begins anew when its content comes into the buffer again."""
    moves: frozenset[tuple[str, str]]
    hashes_first: bool
    """As `Lifecycle` has it."""

    @classmethod
    def of(cls, lifecycle: Lifecycle) -> "States":
        first = lifecycle.steps[0]
        working = {step.working: step for step in lifecycle.steps}
        return cls(
            first=first,
            steps=working,
            unsettled=frozenset({step.source for step in lifecycle.steps} | working.keys() | {FAILED}),
            trouble=frozenset(lifecycle.trouble),
            again=frozenset(lifecycle.again),
            moves=lifecycle.moves | {("", first.source)},
            hashes_first=lifecycle.hashes_first,
        )

    def move_rows(self) -> set[MoveRow]:
        """The moves as the ledger keeps them, for its triggers."""
        return {
            (source, target, target in self.steps, target in self.trouble, target not in self.unsettled)
            for source, target in self.moves
        }

    def step_rows(self) -> set[tuple[str, str, str, int]]:
        """The steps as the ledger keeps them: working state, source, target, position."""
        return {
            (step.working, step.source, step.target, position)
            for position, step in enumerate(self.steps.values())
        }
