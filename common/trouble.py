"""The files in trouble, one by one: what `status --failed` lists, page by page, however many there are."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from common.advice import advice
from common.ledger.reader import InTrouble, LedgerReader
from common.ledger.rows import Total
from common.wording import json_moment, json_path

_PAGE = 500


@dataclass(frozen=True, slots=True)
class CauseGroup:
    """Files that are in one state for one cause."""

    state: str
    cause: str
    files: int
    hint: str


@dataclass(frozen=True, slots=True)
class Troubles:
    """All that is in trouble, as far as it was asked for."""

    groups: tuple[CauseGroup, ...]
    """The largest first."""
    files: Iterator[InTrouble]
    """By group, in their order; within one first what is tried again soonest."""
    listed: int
    """How many `files` holds at most."""

    @property
    def number(self) -> int:
        return sum(group.files for group in self.groups)


def troubles(
    reader: LedgerReader | None, program: str, config: str, *, cause: str | None, limit: int | None
) -> Troubles:
    """Look for files in trouble.

    Parameters
    ----------
    reader
        None when there is no ledger yet.
    cause
        Only those whose cause has this in it, in upper or lower case.
    limit
        So many are listed at most; None: all.
    """
    if reader is None:
        return Troubles((), iter(()), 0)
    wanted = (cause or "").lower()
    found = [total for total in reader.totals() if total.cause and total.files]
    chosen = sorted(
        (total for total in found if wanted in total.cause.lower()), key=lambda total: -total.files
    )
    groups = tuple(_group(reader, program, config, total) for total in chosen)
    number = sum(group.files for group in groups)
    listed = number if limit is None else min(limit, number)
    return Troubles(groups, islice(_files(reader, groups), listed), listed)


def head(found: Troubles) -> dict[str, object]:
    """What `status --failed --json` prints before the files."""
    return {
        "version": 1,
        "in_trouble": found.number,
        "listed": found.listed,
        "groups": [
            {"state": group.state, "cause": group.cause, "files": group.files, "hint": group.hint}
            for group in found.groups
        ],
    }


def as_json(file: InTrouble) -> dict[str, object]:
    """One file, likewise."""
    return {
        "path": json_path(file.path),
        "state": file.state,
        "cause": file.cause,
        "reason": file.reason,
        "attempts": file.attempts,
        "next_try": json_moment(file.due_at),
        "size": file.size,
        "found": json_moment(file.found_at),
    }


def _group(reader: LedgerReader, program: str, config: str, total: Total) -> CauseGroup:
    first = next(iter(reader.in_trouble(total.state, total.cause, limit=1)), None)
    hint = advice(
        program,
        config,
        total.state,
        total.cause,
        is_due=first is not None and first.due_at is not None,
        example=first.path if first else None,
        single=total.files == 1,
    )
    return CauseGroup(total.state, total.cause, total.files, hint)


def _files(reader: LedgerReader, groups: tuple[CauseGroup, ...]) -> Iterator[InTrouble]:
    """A page at a time, so that the ledger is never held for as long as somebody reads."""
    for group in groups:
        after: InTrouble | None = None
        while page := reader.in_trouble(group.state, group.cause, after=after, limit=_PAGE):
            yield from page
            after = page[-1]
