"""One batch on its way: hashed, sent into staging, verified there at rest, and put in place."""

import errno
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from common.entry import Batch, Done, Entry, Failed, Outcome, Report
from common.errors import Failure, RemoteError, Scope, unreadable
from common.exchange import Receipts
from common.files import Algorithm, Checksum, Fence, Hashing, checksum
from common.pool import Tell
from common.remote import Remote
from common.room import Room
from common.transport import KILLED, Sent, Transport
from common.wording import path as shown
from handoff.lifecycle import SEND
from handoff.route import Orders, Route
from handoff.survey import survey
from handoff.visit import Expected, Result, ask, place

_GONE = "left the buffer"
_BIG = 32 << 20
"""From so many bytes on a file is hashed beside a transfer that reads it as well; below, hashing first
warms the page cache."""


@dataclass(frozen=True, slots=True)
class News:
    """What a visit to the endpoint has brought home beside the outcomes of a batch."""

    room: Mapping[str, Room]
    receipts: Receipts


def batch_name(owner: str, batch: Batch) -> bytes:
    """The name of the directory of a batch in staging; each try has one of its own."""
    return f"batch-{owner}-{batch.id}".encode()


class Delivery:
    """The delivery of one batch. Each file gets an outcome of its own, whatever happens to the others."""

    def __init__(
        self,
        route: Route,
        remote: Remote,
        transport: Transport,
        batch: Batch,
        orders: Orders,
        tell: Tell,
    ) -> None:
        self._route = route
        self._remote = remote
        self._transport = transport
        self._batch = batch
        self._orders = orders
        self._tell = tell
        self._phases: dict[str, float] = {}
        self._news: News | None = None
        self._outcomes: list[Outcome] = []
        self._open: dict[bytes, Entry] = {}
        """By path: the files whose outcome is not known yet."""
        self._discard: list[bytes] = []
        """Paths that were sent, and are not to arrive."""
        self._checksums: dict[bytes, Checksum] = {}
        self._late: list[Entry] = []
        """Files that are hashed while they are sent."""

    def run(self) -> Report:
        """Deliver; a failure of the whole is the failure of each file that has no outcome yet."""
        sent = None
        try:
            with self._phase("hash"):
                self._hash(self._orders.algorithm)
            self._ask()
            sent = self._send()
            self._place(sent)
        except RemoteError as error:
            self._fail_rest(error.failure)
        return Report(
            tuple(self._outcomes),
            self._phases,
            sent.bytes if sent else 0,
            sent.exit_code if sent else None,
            sent.error if sent else "",
            self._news,
        )

    def _hash(self, algorithm: Algorithm) -> None:
        done = 0
        for entry in self._batch.entries:
            if entry.claims == 1 and (self._transport.hashes or entry.fence.size >= _BIG):
                self._late.append(entry)
                self._open[entry.path] = entry
                continue
            source = os.path.join(self._route.buffer, entry.path)
            try:
                self._checksums[entry.path], fence = checksum(source, algorithm)
            except OSError as error:
                self._outcomes.append(_unreadable(entry, error))
                continue
            if change := entry.fence.change(fence):
                self._outcomes.append(_changed(entry, change))
                continue
            self._open[entry.path] = entry
            done += entry.fence.size
            self._tell("hash", done)

    def _hash_late(self) -> Iterator[None]:
        for entry in self._late:
            if entry.path in self._checksums:
                continue
            try:
                hashing = Hashing(os.path.join(self._route.buffer, entry.path), self._orders.algorithm)
                for _ in hashing:
                    yield
                # That it is another file by now shows once it is sent.
                self._checksums[entry.path], _ = hashing.result
            except OSError as error:
                del self._open[entry.path]
                self._discard.append(entry.path)
                self._outcomes.append(_unreadable(entry, error))

    def _ask(self) -> None:
        """An earlier try may have arrived unseen: then nothing needs to be sent again."""
        asked = [entry for entry in self._open.values() if entry.claims > 1]
        if not asked:
            return
        with self._phase("ask"):
            answers = ask(
                self._remote,
                buffer=self._route.endpoint_buffer,
                expected=self._expected(asked),
                openssl=self._orders.openssl,
                patience=self._route.patience,
            )
        for result in answers.values():
            # What is not there is sent; a conflict and whatever else shows again when it is placed.
            if result.verdict == "already":
                self._settle(result)

    def _send(self) -> Sent | None:
        if not self._open:
            return None
        hashing = self._hash_late()
        with self._phase("send"):
            sent = self._transport.send(
                self._route.buffer,
                list(self._open),
                os.path.join(self._route.staging, self._name),
                progress=lambda count: self._tell("send", count),
                meanwhile=hashing if self._late and not self._transport.hashes else None,
            )
            self._checksums = {**sent.checksums, **self._checksums}
            if sent.failure is None or sent.failure.scope is Scope.FILE:
                for _ in hashing:
                    self._tell("hash", sent.bytes)
        self._let_go_changed()
        for path, failure in sent.failures.items():
            if path in self._open:
                self._fail(self._open.pop(path), failure)
        if sent.failure is not None and sent.failure.scope is not Scope.FILE:
            self._clear_staging(sent.failure)
            self._fail_rest(sent.failure)
        return sent

    def _let_go_changed(self) -> None:
        """A file that has changed is that, whatever else was seen of it; its new content comes again."""
        for entry in list(self._open.values()):
            try:
                status = os.lstat(os.path.join(self._route.buffer, entry.path))
                change = entry.fence.change(Fence.of(status))
            except OSError:
                change = _GONE
            if change:
                self._discard.append(entry.path)
                self._outcomes.append(_changed(self._open.pop(entry.path), change))

    def _place(self, sent: Sent | None) -> None:
        """Have the endpoint take what has arrived, and clear away the rest, which may be all of it."""
        if sent is None or (sent.failure is not None and sent.failure.scope is not Scope.FILE):
            return
        with self._phase("place"):
            self._tell("place", self._batch.bytes)
            placement = place(
                self._remote,
                staging=self._route.staging,
                buffer=self._route.endpoint_buffer,
                batch=self._name,
                layout=sent.layout,
                directories=sent.directories,
                expected=self._expected(self._open.values()),
                note=self._route.notes,
                sent=datetime.now(UTC).isoformat(timespec="milliseconds"),
                discard=self._discard,
                recorded=self._orders.recorded,
                passing=self._orders.passing,
                openssl=self._orders.openssl,
                patience=self._route.patience,
            )
        self._news = News(placement.space, placement.receipts)
        self._phases |= {f"place.{name}": seconds for name, seconds in placement.phases.items()}
        for result in placement.results.values():
            # The transfer knows better than the endpoint why something has not arrived whole.
            known_reason = sent.failure if result.verdict in ("missing", "differs") else None
            self._settle(result, known_reason)

    def _settle(self, result: Result, known_reason: Failure | None = None) -> None:
        """Take the endpoint's word for one file."""
        entry = self._open.pop(result.path)
        known = self._checksums[result.path]
        match result.verdict:
            case "placed" | "already":
                reason = "" if result.verdict == "placed" else "it was there already"
                self._outcomes.append(Done(entry.id, SEND.target, known, entry.fence, reason))
            case "conflict":
                self._outcomes.append(Done(entry.id, "conflict", known, entry.fence, result.reason))
            case _:
                failure = known_reason or result.failure
                assert failure is not None
                self._fail(entry, failure)

    def _fail_rest(self, failure: Failure) -> None:
        for entry in self._open.values():
            self._fail(entry, failure)
        self._open.clear()

    def _fail(self, entry: Entry, failure: Failure) -> None:
        # Whoever killed the transfer had nothing against its files: without an outcome they go back.
        if failure.cause != KILLED:
            self._outcomes.append(Failed(entry.id, failure, self._checksums.get(entry.path), entry.fence))

    def _clear_staging(self, failure: Failure) -> None:
        """What was sent of a batch that failed must not fill the endpoint's disk."""
        if failure.scope is not Scope.CONNECTION:
            with suppress(RemoteError):
                survey(
                    self._remote,
                    staging=self._route.staging,
                    buffer=self._route.endpoint_buffer,
                    owner=self._route.owner,
                    keep=None,
                    leftovers=[self._name],
                    make=False,
                )

    def _expected(self, entries: Iterable[Entry]) -> list[Expected]:
        return [Expected(entry.path, entry.fence.size, self._checksums[entry.path]) for entry in entries]

    @property
    def _name(self) -> bytes:
        return batch_name(self._route.owner, self._batch)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._phases[name] = time.monotonic() - began


def _changed(entry: Entry, change: str) -> Done:
    return Done(entry.id, "vanished", reason=f"{change} while it was being delivered")


def _unreadable(entry: Entry, error: OSError) -> Outcome:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return _changed(entry, _GONE)
    return Failed(entry.id, unreadable(shown(entry.path), error.strerror))
