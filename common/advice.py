"""What an operator can do about files in trouble, by the state that they are in and its cause."""

from common.ledger.rows import FAILED
from common.wording import word

_MENDING = {
    "altered in storage": "put back what was stored (its digest is in the history), or have it delivered",
    "arrived different": "look at the network, and at the disk at the endpoint",
    "can't be read": "let the manager's account read it",
    "cannot be stored": "look at storage, where something is in the way of the file",
    "cannot be held": "look at the holding area, where something else has the file's name",
    "crashed": "the catalogue's process died over it: see the log, and what the catalogue says of the file",
    "catalogue in doubt": "see the reason: where the catalogue is at fault, mend it, and files are tried "
    "once more by themselves when another one has been ingested; else mend the file",
    "changed while it was placed": "find out what else writes into the endpoint's staging or buffer",
    "did not arrive": "look at the endpoint's staging: something else may clear it away",
    "ingestion failed": "see the reason, and what the catalogue's own log says",
    "invalid": "see whether the catalogue is right; ingester.exclude_list leaves it out",
    "killed again and again": "see the log: memory may be short, or the file may upset the transfer program",
    "larger than the endpoint's disk": "enlarge that, or move the file away",
    "no answer": "the catalogue said nothing of it, which is a fault of the catalogue",
    "no delivery note": "find out who put it into the buffer, and have its note delivered",
    "lost from storage": "put it back, or have it delivered again, which needs no `retry`",
    "may not be moved": "let the manager's account write to its directory, where it is and where it goes",
    "name taken at the endpoint": "at the endpoint, move away what has the file's name",
    "not placed": "look at the file's name and directory at the endpoint",
    "timed out": "see what the catalogue does with it; ingester.timeout is its limit",
    "too large for the disk": "enlarge that, or move the file away",
    "transfer command failed": "run endpoint.commands.transfer by hand, and see what it says",
    "transfer incomplete": "see the reason; send it by hand with the same program",
    "transfer took too long": "raise general.timeout",
    "transfer was killed": "find out who kills programs here: memory may be short",
    "unreadable in staging": "let the file's mode, which is kept, give its owner the right to read it",
}
"""By causes that concern a file alone; those that concern all pause the manager, which then says why."""

_DECIDING = {
    "conflict": "other content has its name: compare the two (`{history}`), and move one of them away",
    "rejected": "its digest is not the delivery note's: compare the two (`{history}`), and send it again",
}
"""By states that a person has to decide."""


def advice(
    program: str, config: str, state: str, cause: str, *, is_due: bool, example: bytes | None, single: bool
) -> str:
    """What to do, with the commands to be typed; empty for what is in no trouble.

    Parameters
    ----------
    config
        As a word for a shell.
    is_due
        Whether it is tried again by itself.
    example
        The path of such a file.
    single
        Whether this is about no other file.
    """
    if not cause:
        return ""
    path = "PATH" if example is None else word(example)
    chosen = path if single else f"--cause {word(cause.encode())}"
    retry = f"{program} retry {config} {chosen}"
    what = _DECIDING.get(state, "").format(history=f"{program} history {config} {path}")
    what = what or _MENDING.get(cause, "mend the reason")
    if state == FAILED and is_due:
        return f"{what}; it is tried again by itself, or at once by `{retry}`"
    return f"{what}, then `{retry}`"
