"""The end of a delivery note: it is removed once every file that it names is accounted for."""

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress

from common.exchange import is_plain_name
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
        self._first_seen: dict[bytes, float] = {}
        self._next_listing = 0.0
        self._told: set[bytes] = set()

    def touch(self, origins: Iterable[Origin], now: float) -> None:
        """Files of these notes have been judged."""
        self._due.update(dict.fromkeys({origin.note + b".jsonl" for origin in origins}, now))

    def proceed(self, now: float) -> None:
        """Remove those whose files are all accounted for; tell what a note names that does not come."""
        if self._directory is None:
            return
        if now >= self._next_listing:
            self._next_listing = now + _AGAIN
            with suppress(OSError):
                names = [name for name in os.listdir(self._directory) if is_plain_name(name)]
                self._due = dict.fromkeys(names, now) | self._due
        for name in [name for name, due in self._due.items() if due <= now][:_AT_ONCE]:
            self._look(os.path.join(self._directory, name), name, now)

    def _look(self, path: bytes, name: bytes, now: float) -> None:
        origins, malformed = parse_note(path)
        missing = self._missing(origins)
        if (missing or malformed or not origins) and os.path.lexists(path):
            self._due[name] = now + _AGAIN
            self._tell(name, missing, now)
            return
        with suppress(OSError):
            os.unlink(path)
        self._due.pop(name, None)
        self._first_seen.pop(name, None)
        self._told.discard(name)

    def _tell(self, name: bytes, missing: Sequence[Origin], now: float) -> None:
        waited = now - self._first_seen.setdefault(name, now)
        if waited < _LATE or name in self._told:
            return
        self._told.add(name)
        what = (
            f"{len(missing):,} files that are not here, such as {shown(missing[0].path)}"
            if missing
            else "what makes no sense"
        )
        log.warning("the delivery note %s has named for %s %s", shown(name), duration(waited), what)

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
