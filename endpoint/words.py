"""The words that the original endpoint manager had for what has become of a file."""

from collections.abc import Mapping

from endpoint.catalogues.contract import Verdict
from endpoint.lifecycle import IN_DOUBT, INGEST, LIFECYCLE

WORDS: Mapping[str, str] = {
    "UNTRIED": "known, and not ingested yet",
    "RERUN": "to be ingested once more by somebody's wish; here `retry` puts it back among the untried",
    "PENDING": "being ingested",
    "SUCCESS": "ingested",
    "FAILURE": "could not be ingested, or stored, or verified",
    "UNKNOWN": "nobody knows what came of it: the catalogue hung, died or said nothing, or the file is gone",
    "IGNORED": "not to be ingested, or the same as one that is",
    "INVALID": "can't be ingested as it is, or is not what was sent",
    "BACKFILL": "was there before the manager was",
}
"""Each with what it means here, in the original's order."""

_BY_STATE = {
    INGEST.working: "PENDING",
    INGEST.target: "SUCCESS",
    "failed": "FAILURE",
    "conflict": "FAILURE",
    "rejected": "INVALID",
    "duplicate": "IGNORED",
    "ignored": "IGNORED",
    "vanished": "UNKNOWN",
    "backfilled": "BACKFILL",
}
_BY_CAUSE = {
    str(Verdict.INVALID): "INVALID",
    str(Verdict.TIMED_OUT): "UNKNOWN",
    str(Verdict.CRASHED): "UNKNOWN",
    str(Verdict.NO_ANSWER): "UNKNOWN",
    IN_DOUBT: "UNKNOWN",
}
"""Of what has failed."""


def original(state: str, cause: str = "") -> str:
    """The original's word for a file in this state, which it is in for that cause."""
    if state == "failed":
        return _BY_CAUSE.get(cause, "FAILURE")
    return _BY_STATE.get(state, "UNTRIED")


def states(word: str) -> tuple[str, ...]:
    """Our states for one of the words; what has failed has it for some causes alone."""
    plain = tuple(state for state in LIFECYCLE.states if original(state) == word)
    return plain + ("failed",) * (word in _BY_CAUSE.values())
