"""The states of a file on the endpoint site."""

from common.lifecycle import Lifecycle, Step

VERIFY = Step("arrived", "verifying", "verified")
STORE = Step("verified", "storing", "stored")
INGEST = Step("stored", "ingesting", "ingested")

LIFECYCLE = Lifecycle(
    manager="endpoint",
    steps=(VERIFY, STORE, INGEST),
    exits={
        "failed": ("verifying", "storing", "ingesting"),
        "rejected": ("verifying",),
        "conflict": ("verifying", "storing", "ingesting"),
        "duplicate": ("verifying",),
        "ignored": ("ingesting",),
        "vanished": (
            *("arrived", "verifying", "verified", "storing", "stored", "ingesting"),
            *("failed", "rejected", "conflict", "duplicate"),
        ),
        "backfilled": ("",),
    },
    returns={
        # A due retry is claimed straight from `failed`; `retry` goes back to where the trouble was.
        "failed": ("verifying", "storing", "ingesting", "arrived", "verified", "stored"),
        "rejected": ("arrived",),
        "conflict": ("arrived", "verified", "stored"),
        "duplicate": ("arrived",),
        "vanished": ("arrived",),
        # What is lost from storage is taken on once more when it comes again.
        "stored": ("arrived",),
        "ingested": ("arrived",),
        "ignored": ("arrived",),
        "backfilled": ("arrived",),
    },
    goal="ingested",
    again=("duplicate", "vanished", "ignored", "backfilled"),
    # Verification hashes whatever comes.
    hashes_first=False,
)

ABSENT = ("vanished",)
"""States of versions that are not in the buffer: one of these that is seen there has come back."""
FINISHED = ("ingested", "duplicate", "ignored", "vanished", "backfilled")
"""States of files that need nothing more."""
STORED = ("stored", "ingesting", "ingested", "ignored", "backfilled")
"""States of versions that lie in storage."""
BACKFILLED = "backfilled"
"""The state of what was in storage before the ledger knew it; the manager leaves it there."""
IN_DOUBT = "catalogue in doubt"
"""The cause of what is spent because the catalogue failed over it, and ingested nothing else meanwhile."""
