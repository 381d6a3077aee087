"""Stored files are given to the catalogue, and what it answers becomes their outcome."""

import os
import re
from collections.abc import Mapping, Sequence

from common.entry import Batch, Done, Entry, Failed, Outcome
from common.errors import Failure, Scope
from common.placing import is_gone, same_content
from common.pool import Tell
from common.wording import path as shown
from endpoint.catalogues.contract import CatalogueError, Request, Result, Verdict
from endpoint.catalogues.host import Host
from endpoint.lifecycle import INGEST
from endpoint.premises import Premises

_HINTS: Mapping[Verdict, str] = {
    Verdict.INVALID: "mend it, or leave it out by ingester.exclude_list; `retry` tries it again",
    Verdict.TIMED_OUT: "look at the catalogue's log; ingester.timeout is the limit",
    Verdict.CRASHED: "the catalogue's process died over it: its last words stand here or in the log",
    Verdict.NO_ANSWER: "the catalogue gave no answer for it: this is a fault of the catalogue",
}


class Ingestion:
    """Ingests batches through the one catalogue process that its worker keeps."""

    def __init__(self, premises: Premises, host: Host, tell: Tell) -> None:
        self._premises = premises
        self._host = host
        self._tell = tell
        self._has_ingested = False
        self._include = tuple(re.compile(pattern) for pattern in premises.include)
        self._exclude = tuple(re.compile(pattern) for pattern in premises.exclude)

    def take(self, batch: Batch) -> tuple[Outcome, ...]:
        """One outcome for each file; a failure of the whole catalogue is that of all without a result."""
        outcomes: dict[int, Outcome] = {}
        wanted: dict[int, Entry] = {}
        for entry in batch.entries:
            outcome = self._beforehand(entry)
            if outcome is None:
                wanted[entry.id] = entry
            else:
                outcomes[entry.id] = outcome
        failure = None
        try:
            self._ask(wanted, outcomes)
        except CatalogueError as error:
            failure = Failure(Scope.ENDPOINT, "catalogue not usable", error.message, error.hint)
        for entry_id in wanted.keys() - outcomes.keys():
            if failure:
                outcomes[entry_id] = Failed(entry_id, failure)
        return tuple(outcomes.values())

    def _ask(self, wanted: Mapping[int, Entry], outcomes: dict[int, Outcome]) -> None:
        done = 0
        failed_before = [entry.id for entry in wanted.values() if entry.attempts]
        requests = self._requests(tuple(wanted.values()))
        for result in self._host.ingest(requests, failed_before=failed_before):
            entry = wanted[result.id]
            outcomes[entry.id] = _outcome(entry, result)
            if result.verdict is Verdict.INGESTED and not self._has_ingested:
                self._has_ingested = True
                self._host.remake(self._premises.remembering(self._premises.database).catalogue_config)
            done += entry.fence.size
            self._tell("ingest", done)

    def _requests(self, entries: Sequence[Entry]) -> list[Request]:
        requests = []
        for entry in entries:
            assert entry.checksum is not None, "a stored file has been hashed"
            path = os.path.join(self._premises.home, entry.path)
            requests.append(Request(entry.id, path, entry.path, entry.fence.size, entry.checksum))
        return requests

    def _beforehand(self, entry: Entry) -> Outcome | None:
        """The outcome of what the catalogue is not to be asked about."""
        if reason := self._why_ignored(entry.path):
            return Done(entry.id, "ignored", reason=reason)
        if self._premises.storage is not None:
            trouble = self._trouble(entry, self._premises.storage)
            return Failed(entry.id, trouble) if trouble else None
        # Of one that was tried before, the catalogue may be able to say whether it has taken it.
        if entry.claims == 1 and is_gone(os.path.join(self._premises.home, entry.path)):
            return Done(entry.id, "vanished", reason="left the buffer before it could be ingested")
        return None

    @staticmethod
    def _trouble(entry: Entry, storage: bytes) -> Failure | None:
        """What has befallen a file in storage since it was put there; None: nothing.

        The catalogue gets its digest, which has to be that of what lies there.
        """
        assert entry.checksum is not None, "a stored file has been hashed"
        place = os.path.join(storage, entry.path)
        try:
            status = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            reason = f"{shown(place)} is not there any more"
            hint = "put it back, and `retry`; when it is delivered again, it goes on"
            return Failure(Scope.FILE, "lost from storage", reason, hint, transient=False)
        except OSError:
            # The catalogue meets that as well, and tells.
            return None
        if (status.st_size, status.st_mtime_ns) == (entry.fence.size, entry.fence.mtime_ns):
            return None
        if same_content(place, entry.checksum, entry.fence.size):
            return None
        reason = f"{shown(place)} has other content than was stored there"
        hint = f"put back what has {entry.checksum.algorithm} {entry.checksum.digest}, and `retry`"
        return Failure(Scope.FILE, "altered in storage", reason, hint, transient=False)

    def _why_ignored(self, path: bytes) -> str:
        text = os.fsdecode(path)
        if any(pattern.search(text) for pattern in self._exclude):
            return "ingester.exclude_list leaves it out"
        if self._include and not any(pattern.search(text) for pattern in self._include):
            return "ingester.include_list does not name it"
        return ""


def _outcome(entry: Entry, result: Result) -> Outcome:
    reason = f"{shown(entry.path)}: {result.reason or result.verdict}"
    match result.verdict:
        case Verdict.INGESTED:
            return Done(entry.id, INGEST.target, reason=result.reason)
        case Verdict.ALREADY:
            return Done(entry.id, INGEST.target, reason=result.reason or "the catalogue had it already")
        case Verdict.IGNORED:
            return Done(entry.id, "ignored", reason=result.reason or "the catalogue does not want it")
        case Verdict.CONFLICT:
            return Done(entry.id, "conflict", reason=reason)
        case Verdict.AGAIN:
            hint = "it goes on by itself"
            return Failed(entry.id, Failure(Scope.ENDPOINT, "catalogue busy", reason, hint))
    hint = _HINTS.get(result.verdict, "look at what the catalogue says; `retry` tries it again")
    transient = result.verdict is not Verdict.INVALID
    cause = "ingestion failed" if result.verdict is Verdict.FAILED else str(result.verdict)
    return Failed(entry.id, Failure(Scope.FILE, cause, reason, hint, transient=transient))
