"""What the ledger derives from a lifecycle."""

from common.ledger.states import States
from endpoint.lifecycle import LIFECYCLE as ENDPOINT
from handoff.lifecycle import HOLD, LIFECYCLE, SEND


def test_a_handoff_managers_states_are_sorted() -> None:
    states = States.of(LIFECYCLE)
    assert (states.first, dict(states.steps)) == (SEND, {"sending": SEND, "holding": HOLD})
    assert states.unsettled == {"found", "sending", "delivered", "holding", "failed"}
    assert states.trouble == {"failed", "conflict"}
    assert states.again == {"held", "vanished"}


def test_an_endpoint_managers_states_are_sorted() -> None:
    states = States.of(ENDPOINT)
    steps = {"arrived", "verifying", "verified", "storing", "stored", "ingesting"}
    assert states.unsettled == steps | {"failed"}
    assert states.trouble == {"failed", "rejected", "conflict"}
    assert states.again == {"duplicate", "vanished", "ignored", "backfilled"}


def test_a_move_says_what_holds_after_it() -> None:
    rows = {(source, target): rest for source, target, *rest in States.of(ENDPOINT).move_rows()}
    in_flight, trouble, settled = [1, 0, 0], [0, 1, 0], [0, 0, 1]
    assert rows["", "arrived"] == [0, 0, 0]
    assert rows["arrived", "verifying"] == rows["failed", "storing"] == in_flight
    assert rows["verifying", "failed"] == trouble
    assert rows["verifying", "rejected"] == [0, 1, 1]
    assert (
        rows["ingesting", "ingested"] == rows["verifying", "duplicate"] == rows["", "backfilled"] == settled
    )
    assert rows["storing", "stored"] == [0, 0, 0]
