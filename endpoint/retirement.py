"""The end of a delivery note: it is removed once every file that it names is accounted for."""

import logging
import os
from collections.abc import Iterable
from contextlib import suppress

from common.ledger.ledger import Ledger
from common.ledger.rows import Origin
from common.wording import duration
from common.wording import path as shown
from endpoint.notes import parse_note, paths_in

log = logging.getLogger(__name__)

_AT_ONCE = 20
"""So many notes are looked at in a second at most."""
_AGAIN = 600.0
"""Seconds after which one that names what is not there is looked at again without cause."""
_LATE = 3600.0
"""Seconds after which a note that names what is not there is told."""


class Retirement:
    """Keeps an eye on the notes that lie in staging. Times are seconds by a monotonic clock."""

    def __init__(self, ledger: Ledger, staging: bytes | None) -> None:
        self._ledger = ledger
        self._directory = None if staging is None else os.path.join(staging, b".notes")
        self._due: dict[bytes, float] = {}
        """By note: when it is to be looked at."""
        self._seen: dict[bytes, float] = {}
        self._told: set[bytes] = set()

    def note(self, names: Iterable[bytes], now: float) -> None:
        """Notes that have been read for the first time."""
        for name in names:
            self._seen.setdefault(name, now)
            self._due.setdefault(name, now)

    def touch(self, origins: Iterable[Origin], now: float) -> None:
        """Files of these notes have been judged."""
        for stem in {origin.note for origin in origins}:
            self._due[stem + b".jsonl"] = now
            self._seen.setdefault(stem + b".jsonl", now)

    def proceed(self, now: float) -> None:
        """Remove those whose files are all accounted for; tell what a note names that does not come."""
        if self._directory is None:
            return
        ripe = [name for name, due in self._due.items() if due <= now][:_AT_ONCE]
        for name in ripe:
            self._look(name, now)

    def _look(self, name: bytes, now: float) -> None:
        assert self._directory is not None
        path = os.path.join(self._directory, name)
        origins, malformed = parse_note(path)
        missing = self._missing(origins)
        if missing or malformed or not origins:
            self._due[name] = now + _AGAIN
            waited = now - self._seen[name]
            if waited > _LATE and name not in self._told:
                self._told.add(name)
                what = (
                    f"{len(missing):,} files that are not here, such as {shown(missing[0].path)}"
                    if missing
                    else "nothing that makes sense"
                )
                log.warning("the delivery note %s names, since %s, %s", shown(name), duration(waited), what)
            if os.path.lexists(path):
                return
        with suppress(OSError):
            os.unlink(path)
        for memory in (self._due, self._seen):
            memory.pop(name, None)
        self._told.discard(name)

    def _missing(self, origins: tuple[Origin, ...]) -> list[Origin]:
        """Those whose versions have not been judged yet."""
        versions = self._ledger.versions(paths_in(origins))
        judged = {
            (path, version.checksum)
            for path, known in versions.items()
            for version in known
            if version.state not in ("arrived", "verifying")
        }
        return [origin for origin in origins if (origin.path, origin.checksum) not in judged]
