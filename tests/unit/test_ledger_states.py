"""What the ledger derives from a lifecycle."""

from common.ledger.states import States
from common.lifecycle import Lifecycle, Step
from handoff.lifecycle import HOLD, LIFECYCLE, SEND

VERIFY = Step("arrived", "verifying", "verified")
STORE = Step("verified", "storing", "stored")
ENDPOINT = Lifecycle(
    manager="endpoint",
    steps=(VERIFY, STORE),
    exits={
        "failed": ("verifying", "storing"),
        "rejected": ("verifying",),
        "duplicate": ("verifying",),
        "backfilled": ("",),
    },
    returns={"failed": ("verifying", "storing", "arrived", "verified"), "rejected": ("arrived",)},
)


def test_a_handoff_managers_states_are_sorted() -> None:
    states = States.of(LIFECYCLE)
    assert (states.first, dict(states.steps)) == (SEND, {"sending": SEND, "holding": HOLD})
    assert states.unsettled == {"found", "sending", "delivered", "holding", "failed"}
    assert states.trouble == {"failed", "conflict"}
    assert states.again == {"held", "vanished"}


def test_an_endpoint_managers_states_are_sorted() -> None:
    states = States.of(ENDPOINT)
    assert states.unsettled == {"arrived", "verifying", "verified", "storing", "failed"}
    assert states.trouble == {"failed", "rejected"}
    assert states.again == set()


def test_a_move_says_what_holds_after_it() -> None:
    rows = {(source, target): rest for source, target, *rest in States.of(ENDPOINT).move_rows()}
    in_flight, trouble, settled = [1, 0, 0], [0, 1, 0], [0, 0, 1]
    assert rows["", "arrived"] == [0, 0, 0]
    assert rows["arrived", "verifying"] == rows["failed", "storing"] == in_flight
    assert rows["verifying", "failed"] == trouble
    assert rows["verifying", "rejected"] == [0, 1, 1]
    assert rows["storing", "stored"] == rows["verifying", "duplicate"] == rows["", "backfilled"] == settled
