"""The states of an entry and the moves between them, declared once for each manager."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Step:
    """Work that takes an entry from a settled state through work in flight to the next one."""

    source: str
    working: str
    target: str


@dataclass(frozen=True)
class Lifecycle:
    """The chain of steps of one manager, and the ways to leave it and to come back.

    Parameters
    ----------
    manager
        Whose lifecycle it is: ``handoff`` or ``endpoint``.
    steps
        The chain, in the order in which an entry goes through it.
    exits
        States beside the chain, each with the states that it is entered from; of these, an empty one
        means that entries may begin there.
    returns
        For each state that can be left backwards, the states that it may go back to.
    goal
        The state that a file is carried for: how fast files come into it is the manager's rate.
    again
        The states from which an entry begins anew when its content comes into the buffer again.
    hashes_first
        Whether a file at a known path is hashed before it is entered, so that a known version is
        recognised there; otherwise the first step finds that out.
    """

    manager: str
    steps: tuple[Step, ...]
    exits: Mapping[str, tuple[str, ...]]
    returns: Mapping[str, tuple[str, ...]]
    goal: str
    again: tuple[str, ...]
    hashes_first: bool = True

    @cached_property
    def states(self) -> tuple[str, ...]:
        """Every state, in the order of the chain and then of the exits."""
        chain = [self.steps[0].source]
        for step in self.steps:
            chain += [step.working, step.target]
        return tuple(dict.fromkeys([*chain, *self.exits]))

    @cached_property
    def moves(self) -> frozenset[tuple[str, str]]:
        """The allowed moves as (from, to); SQL refuses all others."""
        moves: set[tuple[str, str]] = set()
        for step in self.steps:
            moves |= {
                (step.source, step.working),
                (step.working, step.target),
                (step.working, step.source),
            }
        for state, sources in self.exits.items():
            moves |= {(source, state) for source in sources}
        for state, targets in self.returns.items():
            moves |= {(state, target) for target in targets}
        return frozenset(moves)

    @cached_property
    def trouble(self) -> tuple[str, ...]:
        """The exits that an entry leaves by `retry` alone (a failed one also when its time has come)."""
        return tuple(state for state in self.exits if state in self.returns and state not in self.again)

    @cached_property
    def resume(self) -> dict[str, str]:
        """For each state of work in flight, the state that interrupted work resumes from."""
        return {step.working: step.source for step in self.steps}

    def diagram(self) -> str:
        """The lifecycle as a Mermaid state diagram, as the README shows it."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.steps[0].source}"]
        order = {state: position for position, state in enumerate(("", *self.states))}
        for source, target in sorted(self.moves, key=lambda move: (order[move[0]], order[move[1]])):
            lines.append(f"    {source or '[*]'} --> {target}")
        return "\n".join(lines)
