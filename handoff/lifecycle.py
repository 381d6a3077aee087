"""The states of a file on the handoff site."""

from common.lifecycle import Lifecycle, Step

SEND = Step("found", "sending", "delivered")
HOLD = Step("delivered", "holding", "held")

LIFECYCLE = Lifecycle(
    manager="handoff",
    steps=(SEND, HOLD),
    exits={
        "failed": ("sending", "holding"),
        "conflict": ("sending",),
        "vanished": ("found", "sending", "delivered", "holding", "failed", "conflict"),
    },
    returns={
        # A due retry is claimed straight from `failed`; `retry` makes it and a conflict eligible.
        "failed": ("sending", "holding", "found", "delivered"),
        "conflict": ("found",),
        "held": ("found",),
        "vanished": ("found",),
    },
    goal="delivered",
    again=("held", "vanished"),
)

ABSENT = ("held", "vanished")
"""States of versions that are not in the buffer: one of these that is seen there has come back."""
