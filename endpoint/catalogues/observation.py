"""What the headers of a file say of the observation: translated where somebody knows the instrument.

Without the properties that need places in the sky or a calendar, translation takes half a
millisecond; with all of them, three and more. The files of an exposure share it.
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from endpoint.catalogues.asked import Answers, Asked, says_the_same
from endpoint.catalogues.cards import Card, Value, values

if TYPE_CHECKING:
    from astro_metadata_translator import MetadataTranslator

    Translator = type[MetadataTranslator]


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of it; None is not known, or not the same for all detectors that the file holds."""

    translator: str | None = None
    """Who translated the headers; None: the values are those of cards, as they stand there."""
    instrument: Value = None
    telescope: Value = None
    observation_id: Value = None
    exposure: Value = None
    detector: Value = None
    physical_filter: Value = None
    observation_type: Value = None
    object: Value = None
    datetime_begin: Value = None
    """ISO 8601, in UTC if it is translated."""
    datetime_end: Value = None
    exposure_time: Value = None
    """In seconds."""


_REMEMBERED = 16
"""Translations that are used again; the files of an exposure come close together."""

# The translators' names for what has another name here.
_PROPERTIES = {
    "instrument": "instrument",
    "telescope": "telescope",
    "observation_id": "observation_id",
    "exposure_id": "exposure",
    "physical_filter": "physical_filter",
    "observation_type": "observation_type",
    "object": "object",
    "datetime_begin": "datetime_begin",
    "datetime_end": "datetime_end",
    "exposure_time": "exposure_time",
}
# Cards that say it where no translator does, the first of them that is there. The names are those of
# the FITS standard, and those that many observatories use beside it.
_CARDS = {
    "instrument": ("INSTRUME",),
    "telescope": ("TELESCOP",),
    "observation_id": ("OBSID", "OBS_ID"),
    "exposure": ("EXPNUM", "EXPID"),
    "detector": ("CCDNUM", "CCDID", "DETECTOR"),
    "physical_filter": ("FILTER",),
    "observation_type": ("OBSTYPE", "IMAGETYP"),
    "object": ("OBJECT",),
    "datetime_begin": ("DATE-BEG", "DATE-OBS"),
    "datetime_end": ("DATE-END",),
    "exposure_time": ("EXPTIME", "XPOSURE", "EXPOSURE"),
}

Header = Mapping[str, Value]


class Observer:
    """Reads observations out of headers. Its library is imported with the first that names an instrument."""

    def __init__(self) -> None:
        self._translation: _Translation | None = None

    def read(self, units: Sequence[list[Card]]) -> Observation:
        """The observation that a file's header units tell of."""
        # An extension is told with what the primary header says for all of them.
        headers = [values(units[0]), *(values(units[0], unit) for unit in units[1:])]
        known = {name: _first(headers, keywords) for name, keywords in _CARDS.items()}
        known["detector"] = _only(
            _first([header], _CARDS["detector"]) for header in headers[-len(units[1:]) :]
        )
        if known["instrument"] is not None or known["telescope"] is not None:
            self._translation = self._translation or _Translation()
            known |= self._translation.of(headers)
        return Observation(**known)  # type: ignore[arg-type]


def _first(headers: Iterable[Header], keywords: Iterable[str]) -> Value:
    found = (header.get(keyword) for keyword in keywords for header in headers)
    return next((value for value in found if value not in (None, "")), None)


def _only(found: Iterable[Value]) -> Value:
    """The value that all have that have one."""
    different = {value for value in found if value is not None}
    return different.pop() if len(different) == 1 else None


class _Translation:
    """What translates headers; to make it imports all that it needs: a second's work, and 60 MB of memory."""

    def __init__(self) -> None:
        from astropy.utils.data import conf as downloads

        # Before anything else of it: nothing unattended may wait for the Internet, where astropy would
        # look for the latest leap seconds.
        downloads.allow_internet = False
        from astro_metadata_translator import MetadataTranslator, ObservationInfo

        self._determine = MetadataTranslator.determine_translator
        self._observe = ObservationInfo
        self._strange: deque[Answers] = deque(maxlen=_REMEMBERED)
        """Of headers that nobody can translate."""
        self._recent: deque[tuple[Translator, Answers, Mapping[str, Value]]] = deque(maxlen=_REMEMBERED)
        """What was translated, by whom, and the answers on which that rests."""

    def of(self, headers: Sequence[Header]) -> Mapping[str, Value]:
        """What the headers of a file say of the observation; nothing where nobody knows the instrument."""
        with warnings.catch_warnings(action="ignore"):
            translator = next(filter(None, map(self._translator, headers[:2])), None)
            if translator is None:
                return {}
            found = {
                "translator": translator.name,
                # Of a file with one extension or none, that says all; of others, it is one detector's.
                **self._exposure(translator, headers[:2][-1]),
                "detector": _only(_detector(translator, header) for header in headers[1:] or headers),
            }
        return {name: value for name, value in found.items() if value is not None}

    def _translator(self, header: Header) -> "Translator | None":
        # To find nobody takes five milliseconds, a look at all installed packages among them.
        if any(says_the_same(header, answers) for answers in self._strange):
            return None
        asked = Asked(header)
        try:
            return self._determine(asked)
        except ValueError:
            self._strange.append(asked.answers)
            return None

    def _exposure(self, translator: "Translator", header: Header) -> Mapping[str, Value]:
        for known, answers, found in reversed(self._recent):
            if known is translator and says_the_same(header, answers):
                return found
        asked = Asked(header)
        try:
            info = self._observe(asked, translator_class=translator, subset=set(_PROPERTIES), quiet=True)
        except Exception:  # noqa: BLE001 - a translator may raise anything over a header; its cards are left
            return {}
        found = {name: _plain(getattr(info, key)) for key, name in _PROPERTIES.items()}
        self._recent.append((translator, asked.answers, found))
        return found


def _detector(translator: Callable[[Header], object], header: Header) -> Value:
    try:
        number = translator(dict(header)).to_detector_num()  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - as above; and not every extension is of a detector
        return None
    return int(number) if number is not None else None


def _plain(value: object) -> Value:
    """A property as SQLite takes it."""
    if value is None or isinstance(value, Value):
        return value
    if hasattr(value, "utc"):  # an astropy time
        return f"{value.utc.isot}Z"
    if hasattr(value, "to_value"):  # a quantity: the only ones asked for are times
        return float(value.to_value("s"))
    return value.total_seconds() if isinstance(value, timedelta) else str(value)
