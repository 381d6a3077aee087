"""The end of a delivery note: it is removed once every file that it names is accounted for."""

import logging
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from common.exchange import is_plain_name
from common.ledger.ledger import Ledger
from common.ledger.rows import Origin, Version
from common.logs import Steady
from common.wording import duration
from common.wording import path as shown
from endpoint.lifecycle import STORED
from endpoint.notes import parse_note, paths_in

log = logging.getLogger(__name__)

_AT_ONCE = 0.2
"""Seconds that are spent on notes in a second at most: some take 0.1 ms, those of 500 files 10 ms."""
_AGAIN = 600.0
"""Seconds after which one that names what is not there is looked at again without cause."""
_LATE = 3600.0
"""Seconds after which nobody expects files of a note to come any more; it is told if some have not."""
_UNJUDGED = ("arrived", "verifying")
_THROUGH = (*STORED, "failed")
"""States of versions that need no verifying: what fails and has a digest has failed after that, as a rule."""


class Retirement:
    """Keeps an eye on the notes that lie in staging. Times are seconds by a monotonic clock."""

    def __init__(self, ledger: Ledger, staging: bytes | None) -> None:
        self._ledger = ledger
        self._directory = None if staging is None else os.path.join(staging, b".notes")
        self._due: dict[bytes, float] = {}
        """By note: when it is to be looked at."""
        self._first_seen: dict[bytes, float] = {}
        self._next_listing = 0.0
        self._told: set[bytes] = set()
        self._steady = Steady()

    def touch(self, notes: Iterable[bytes], now: float) -> None:
        """Files of these notes, by their names without an end, are in storage now."""
        self._due.update(dict.fromkeys((note + b".jsonl" for note in notes), now))

    def proceed(self, now: float) -> None:
        """Remove those whose files are all accounted for; tell what a note names that does not come."""
        if self._directory is None:
            return
        if now >= self._next_listing:
            self._next_listing = now + _AGAIN
            with suppress(OSError):
                names = [name for name in os.listdir(self._directory) if is_plain_name(name)]
                self._due = dict.fromkeys(names, now) | self._due
        until = time.monotonic() + _AT_ONCE
        for name in [name for name, due in self._due.items() if due <= now]:
            self._look(os.path.join(self._directory, name), name, now)
            if time.monotonic() >= until:
                return

    def _look(self, path: bytes, name: bytes, now: float) -> None:
        try:
            origins, malformed = parse_note(path)
        except OSError:
            # It is told where files wait for it.
            self._due[name] = now + _AGAIN
            return
        waited = now - self._first_seen.setdefault(name, now)
        missing = self._missing(origins, is_late=waited >= _LATE)
        if (missing or malformed or not origins) and os.path.lexists(path):
            self._due[name] = now + _AGAIN
            self._tell(name, missing, waited)
            return
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            if self._steady.due("notes", str(error.errno)):
                log.warning("delivery notes can't be removed, and become more and more: %s", error)
        self._due.pop(name, None)
        self._first_seen.pop(name, None)
        self._told.discard(name)

    def _tell(self, name: bytes, missing: Sequence[Origin], waited: float) -> None:
        if waited < _LATE or name in self._told:
            return
        self._told.add(name)
        what = (
            f"{len(missing):,} files that are not in storage, such as {shown(missing[0].path)}"
            if missing
            else "what makes no sense"
        )
        log.warning("the delivery note %s has named for %s %s", shown(name), duration(waited), what)

    def _missing(self, origins: tuple[Origin, ...], *, is_late: bool) -> list[Origin]:
        """Those whose versions may have to be verified yet, or once more: that needs the note."""
        paths = paths_in(origins)
        versions, kept = self._ledger.versions(paths), self._ledger.origins(paths)
        return [
            origin
            for origin in origins
            if not _is_accounted_for(
                origin,
                versions.get(origin.path, ()),
                kept.get((origin.path, origin.checksum)),
                is_late=is_late,
            )
        ]


def _is_accounted_for(
    origin: Origin, known: Sequence[Version], kept: tuple[bytes, int] | None, *, is_late: bool
) -> bool:
    """Whether what a note names is stored, and nothing that it names waits to be verified.

    What was stored before may be about to come once more, so that a file has to have been verified by this
    note, or a later one, which is the one that is `kept`; unless it `is_late` for that. A file that was
    verified may be known by another digest: a duplicate is an entry without one, beside the version that
    lies in storage.
    """
    if any(version.checksum is None and version.state in _UNJUDGED for version in known):
        return False
    if not is_late and (kept is None or kept[1] < origin.sent_at):
        return False
    same = [version for version in known if version.checksum == origin.checksum]
    if same or kept is None:
        return any(version.state in _THROUGH for version in same)
    return any(version.state in STORED for version in known)
