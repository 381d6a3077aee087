"""One file's whole story: every version of it, what happened to each, and what each waits for."""

from dataclasses import dataclass

from common.advice import advice
from common.ledger.reader import LedgerReader
from common.ledger.rows import FAILED, VANISHED, Origin, Receipt, Ride, Transition, VersionStory
from common.lifecycle import Lifecycle
from common.wording import duration, json_moment, json_path


@dataclass(frozen=True, slots=True)
class Chapter:
    """One version, and what it waits for now."""

    version: VersionStory
    waits_for: str
    hint: str = ""
    """What a person can do about it, where it is in trouble."""


@dataclass(frozen=True, slots=True)
class Story:
    """All versions of one path, newest first."""

    program: str
    path: bytes
    at_ms: int
    chapters: tuple[Chapter, ...]


def tell(
    program: str,
    path: bytes,
    versions: tuple[VersionStory, ...],
    lifecycle: Lifecycle,
    now_ms: int,
    obstacle: str = "",
    config: str = "CONFIG",
    *,
    is_running: bool = True,
    lying: str = "",
) -> Story:
    """The story of a path's versions.

    Parameters
    ----------
    obstacle
        What keeps the manager from taking on any file.
    config
        The configuration's file, as a word for a shell.
    lying
        Why what lies in the buffer under this name would not be known; empty if nothing does.
    """
    # All versions that are known are through, or gone: what lies there is none of them.
    is_new = bool(lying) and {version.state for version in versions} <= {lifecycle.steps[-1].target, VANISHED}
    unknown = f"what lies in the buffer by this name is not known yet: {lying}" if is_new else ""

    def chapter(version: VersionStory) -> Chapter:
        is_due = version.due_at is not None
        hint = advice(program, config, version.state, version.cause, is_due=is_due, example=path, single=True)
        waiting = waits_for(version, program, lifecycle, now_ms, obstacle, is_running=is_running)
        return Chapter(version, waiting, hint or (unknown if version is versions[0] else ""))

    return Story(program, path, now_ms, tuple(map(chapter, versions)))


def obstacle(reader: LedgerReader, program: str, *, is_running: bool) -> str:
    """What keeps a manager from taking on any file; empty when nothing does."""
    if not is_running:
        return f"{program} is not running"
    row = reader.manager()
    return f"{program} is paused: {row.paused}" if row and row.paused else ""


def waits_for(
    version: VersionStory,
    program: str,
    lifecycle: Lifecycle,
    now_ms: int,
    obstacle: str = "",
    *,
    is_running: bool = True,
) -> str:
    """Why it is where it is and what takes it further, in one sentence."""
    state, reason = version.state, f": {version.reason}" if version.reason else ""
    if state == lifecycle.steps[-1].target:
        return "nothing: it is through"
    if state == VANISHED:
        return f"its content to come back{reason}"
    if state in lifecycle.resume and not is_running:
        return f"its batch to be resumed: {obstacle}"
    if state in lifecycle.resume:
        return f"the end of its batch, that is {state} now"
    if state == FAILED and version.due_at is not None:
        wait = max(0.0, (version.due_at - now_ms) / 1000)
        blocked = f"; but {obstacle}" if obstacle else ""
        return f"its next try in {duration(wait)}, after {_failures(version.attempts)}{reason}{blocked}"
    if state == FAILED:
        return f"`{program} retry`, after {_failures(version.attempts)}{reason}"
    if state in lifecycle.exits:
        return (
            f"`{program} retry`{reason}" if state in lifecycle.trouble else f"nothing: it is {state}{reason}"
        )
    # A reason from before the pause says less than the pause.
    return f"its turn to be taken on{f': {obstacle}' if obstacle else reason}"


def as_json(story: Story) -> dict[str, object]:
    """A story as `history --json` prints it."""
    return {
        "version": 1,
        "path": json_path(story.path),
        "at": json_moment(story.at_ms),
        "versions": [_version(chapter) for chapter in story.chapters],
    }


def _failures(attempts: int) -> str:
    return "1 failure" if attempts == 1 else f"{attempts} failures"


def _version(chapter: Chapter) -> dict[str, object]:
    version = chapter.version
    return {
        "state": version.state,
        "waits_for": chapter.waits_for,
        "hint": chapter.hint,
        "size": version.fence.size,
        "modified": json_moment(version.fence.mtime_ns // 1_000_000),
        "algorithm": version.checksum.algorithm if version.checksum else None,
        "digest": version.checksum.digest if version.checksum else None,
        "attempts": version.attempts,
        "next_try": json_moment(version.due_at),
        "cause": version.cause,
        "reason": version.reason,
        "found": json_moment(version.found_at),
        "changed": json_moment(version.changed_at),
        "transitions": [_transition(transition) for transition in version.transitions],
        "batches": [_ride(ride) for ride in version.rides],
        "receipts": [_receipt(receipt) for receipt in version.receipts],
        "origin": _origin(version.origin),
    }


def _transition(transition: Transition) -> dict[str, object]:
    return {
        "at": json_moment(transition.at),
        "from": transition.source or None,
        "to": transition.target or None,
        "batch": transition.batch_id,
        "reason": transition.reason,
    }


def _ride(ride: Ride) -> dict[str, object]:
    return {
        "batch": ride.batch_id,
        "state": ride.step,
        "worker": ride.worker,
        "started": json_moment(ride.started_at),
        "finished": json_moment(ride.finished_at),
        "files": ride.files,
        "bytes": ride.bytes,
        "phases_seconds": dict(ride.phases),
        "exit_code": ride.exit_code,
        "error": ride.error,
    }


def _origin(origin: Origin | None) -> dict[str, object] | None:
    if origin is None:
        return None
    return {"note": json_path(origin.note), "sent": json_moment(origin.sent_at)}


def _receipt(receipt: Receipt) -> dict[str, object]:
    return {"at": json_moment(receipt.at), "state": receipt.state}
