"""Whatever order the verbs come in, totals are true, nothing is lost or doubled, and all can be finished."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.entry import Batch, Entry, Outcome
from common.files import Fence
from common.ledger.rows import VANISHED, Found
from common.lifecycle import Step
from handoff.lifecycle import HOLD, LIFECYCLE, SEND
from tests.ledgers import (
    NOW,
    UNREACHABLE,
    assert_sound,
    bring,
    checksum,
    done,
    failed,
    open_ledger,
    rows,
)

PATHS = st.sampled_from([b"a", b"b", b"d/c"])
CONTENTS = st.sampled_from(["light", "dark", ""])
STEPS = st.sampled_from([SEND, HOLD])
KINDS = st.sampled_from(["well", "wrong", "failed", "unreachable", "conflict", "nothing"])
ALLOWED = LIFECYCLE.moves | {("", "found"), ("sending", "")}


class AnyOrder(RuleBasedStateMachine):
    """A buffer whose files change at any time, and a ledger whose verbs are used in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.ledger = open_ledger(Path(self.directory.name))
        self.buffer: dict[bytes, tuple[str, Fence]] = {}
        self.batches: list[Batch] = []
        self.late: list[Batch] = []
        self.now = NOW
        self.race_number = 0

    @rule(path=PATHS, content=st.none() | CONTENTS)
    def change_file(self, path: bytes, content: str | None) -> None:
        """Somebody writes, rewrites or removes a file."""
        self.now += 1
        self.buffer.pop(path, None)
        if content is not None:
            self.buffer[path] = (content, Fence(self.now, len(content), self.now % 7, self.now))

    @rule()
    def scan(self) -> None:
        page = [Found(path, fence, bulky=fence.size > 4) for path, (_, fence) in sorted(self.buffer.items())]
        unknown = self.ledger.record(page, now_ms=self.now).unknown
        hashed = [Found(file.path, file.fence, checksum(self.buffer[file.path][0])) for file in unknown]
        assert self.ledger.record(hashed, now_ms=self.now).unknown == ()

    @rule(path=PATHS, content=CONTENTS)
    def write_and_scan(self, path: bytes, content: str) -> None:
        self.change_file(path, content)
        self.scan()

    @rule(path=PATHS, content=CONTENTS)
    def enter_late(self, path: bytes, content: str) -> None:
        """A file that was hashed a while ago is entered."""
        self.ledger.record([Found(path, Fence(1, 1, 1, 1), checksum(content))], now_ms=self.now)

    @rule(step=STEPS, limit=st.integers(1, 3), bulky=st.sampled_from([None, False]), newest=st.booleans())
    def claim(self, step: Step, limit: int, bulky: bool | None, newest: bool) -> None:
        self.now += 20_000
        batch = self.ledger.claim(
            step,
            limit=limit,
            max_bytes=10,
            worker=0,
            now_ms=self.now,
            bulky=bulky,
            newest_first=newest,
        )
        if batch is not None:
            self.batches.append(batch)

    @precondition(lambda self: bool(self.batches))
    @rule(kinds=st.lists(KINDS, min_size=3, max_size=3), content=CONTENTS)
    def finish(self, kinds: list[str], content: str) -> None:
        batch = self.batches.pop(0)
        outcomes = [
            self.outcome(batch, entry, kind, content)
            for entry, kind in zip(batch.entries, kinds, strict=False)
        ]
        moved = bring(self.ledger, batch, *[one for one in outcomes if one is not None], now_ms=self.now)
        assert moved == len(batch.entries)
        self.late.append(batch)

    @rule(step=STEPS, kinds=st.lists(KINDS, min_size=3, max_size=3), content=CONTENTS)
    def work(self, step: Step, kinds: list[str], content: str) -> None:
        self.claim(step, limit=3, bulky=None, newest=False)
        if self.batches:
            self.finish(kinds, content)

    @rule(content=CONTENTS, kinds=st.lists(KINDS, min_size=3, max_size=3), steps=st.lists(STEPS, max_size=2))
    def race(self, content: str, kinds: list[str], steps: list[Step]) -> None:
        """While a worker has a file that nobody has hashed, the same version is entered, and moves on."""
        self.race_number += 1
        path = b"raced %d" % self.race_number
        self.write_and_scan(path, content)
        before = self.batches
        self.batches = []
        self.claim(SEND, limit=3, bulky=None, newest=False)
        raced, self.batches = self.batches, []
        self.ledger.record([Found(path, Fence(1, 1, 1, 1), checksum(content))], now_ms=self.now)
        for step in steps:
            self.work(step, ["well"] * 3, content)
        self.batches = [*raced, *before]
        if raced:
            self.finish(kinds, content)

    def outcome(self, batch: Batch, entry: Entry, kind: str, content: str) -> Outcome | None:
        """What a worker may say, right or wrong."""
        known = content if kind == "wrong" or entry.checksum is None else None
        match kind:
            case "nothing":
                return None
            case "failed":
                return failed(entry, content=known)
            case "unreachable":
                return failed(entry, UNREACHABLE, known)
            case "conflict" if batch.step == SEND:
                return done(entry, "conflict", known)
        return self.truth(batch, entry) if kind == "well" else done(entry, batch.step.target, known)

    def truth(self, batch: Batch, entry: Entry) -> Outcome:
        """What a worker says that does its work well."""
        content, fence = self.buffer.get(entry.path, ("", None))
        same = entry.checksum is None or entry.checksum == checksum(content)
        if fence is None or not same or (batch.step == SEND and fence != entry.fence):
            return done(entry, VANISHED)
        if batch.step == HOLD:
            del self.buffer[entry.path]
        return done(entry, batch.step.target, content)

    @precondition(lambda self: bool(self.late))
    @rule()
    def finish_late(self) -> None:
        batch = self.late.pop()
        outcomes = [done(entry, batch.step.target, "late") for entry in batch.entries]
        assert bring(self.ledger, batch, *outcomes, now_ms=self.now) == 0

    @rule()
    def start_again(self) -> None:
        self.ledger.close()
        self.ledger = open_ledger(Path(self.directory.name))
        assert self.ledger.rescue(now_ms=self.now) <= sum(len(batch.entries) for batch in self.batches)
        self.late += self.batches
        self.batches.clear()

    @rule(path=PATHS, conflicts=st.booleans())
    def retry(self, path: bytes, conflicts: bool) -> None:
        states = ("failed", "conflict") if conflicts else ("failed",)
        self.ledger.retry(paths=[path], states=states, now_ms=self.now)

    @rule(path=PATHS)
    def vanish(self, path: bytes) -> None:
        ids = [version.id for version in self.ledger.versions([path]).get(path, ())]
        if path not in self.buffer:
            self.ledger.vanish(ids, reason="not in the buffer", now_ms=self.now)

    @rule(seconds=st.integers(-100, 100))
    def set_the_clock(self, seconds: int) -> None:
        self.now += seconds * 1000
        self.ledger.reschedule(seconds * 1000)

    @invariant()
    def everything_is_sound(self) -> None:
        assert_sound(self.ledger)
        assert set(rows(self.ledger, "SELECT source, target FROM history")) <= ALLOWED
        versions = rows(self.ledger, "SELECT path, digest FROM files")
        assert len(set(versions)) == len(versions)
        kept = {
            entry for (entry,) in rows(self.ledger, "SELECT id FROM files UNION SELECT file_id FROM merges")
        }
        assert kept == {entry for (entry,) in rows(self.ledger, "SELECT DISTINCT file_id FROM history")}

    def teardown(self) -> None:
        """From wherever it stands, work that is done well brings all that is in the buffer into holding."""
        try:
            self.start_again()
            self.ledger.retry(states=("failed", "conflict"), now_ms=self.now)
            for _ in range(3):
                self.scan()
                for step in LIFECYCLE.steps:
                    self.work_off(step)
            assert self.buffer == {}
            assert {total.state for total in self.ledger.totals()} <= {"held", "vanished"}
            self.everything_is_sound()
        finally:
            self.ledger.close()
            self.directory.cleanup()

    def work_off(self, step: Step) -> None:
        while batch := self.ledger.claim(step, limit=9, max_bytes=99, worker=0, now_ms=self.now):
            bring(self.ledger, batch, *[self.truth(batch, entry) for entry in batch.entries], now_ms=self.now)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=40,
    stateful_step_count=50,
    deadline=None,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
