"""What the headers of a raw image say: which detectors it holds, and of which exposure.

Translation is what costs most of an ingest. What the detectors of an exposure have in common is
translated once, for the first of them; for the next one it is only compared whether all cards that
were asked for then are the same.
"""

import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from astro_metadata_translator import MetadataTranslator, ObservationInfo
from lsst.resources import ResourcePath

from endpoint.catalogues.asked import Answers, Asked, says_the_same
from endpoint.catalogues.cards import parse, values
from endpoint.catalogues.fits import headers

_REMEMBERED = 200
"""Exposures whose translation is kept."""

# The properties that Rubin's own ingest asks of a raw image, by whether it refuses one without.
_DETECTOR_REQUIRED = frozenset({"instrument", "exposure_id", "detector_num"})
_DETECTOR = _DETECTOR_REQUIRED | {"detector_name", "detector_unique_name", "detector_group"}
_EXPOSURE_REQUIRED = frozenset(
    {
        "datetime_begin",
        "datetime_end",
        "exposure_group",
        "exposure_id",
        "exposure_time_requested",
        "group_counter_end",
        "group_counter_start",
        "has_simulated_content",
        "instrument",
        "observation_id",
        "observation_type",
        "observing_day",
        "physical_filter",
    }
)
_EXPOSURE = _EXPOSURE_REQUIRED | {
    "altaz_begin",
    "boresight_rotation_angle",
    "boresight_rotation_coord",
    "can_see_sky",
    "dark_time",
    "object",
    "observation_counter",
    "observation_reason",
    "observing_day_offset",
    "science_program",
    "tracking_radec",
    "visit_id",
}


class UntranslatableError(Exception):
    """Why the headers of a FITS file say too little, in a sentence."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A detector during an exposure."""

    exposure: ObservationInfo
    """What it has in common with the exposure's other detectors."""
    detector: ObservationInfo
    """What is its own."""


class Observer:
    """Reads the observations that files hold."""

    def __init__(self) -> None:
        self._exposures: OrderedDict[tuple[str, int], tuple[ObservationInfo, Answers]] = OrderedDict()
        """By instrument and number: what was translated, and the answers on which that rests."""

    def read(self, path: bytes) -> tuple[Observation, ...]:
        """All observations of a file, at least one.

        Raises
        ------
        FitsError
            It is no FITS file, or not a whole one.
        UntranslatableError
            Its headers do not say what Butler has to know.
        OSError
            It can't be read.
        """
        own = headers(path, most=2)
        with warnings.catch_warnings(action="ignore"):
            try:
                return tuple(self._observations(path, own))
            except (UntranslatableError, OSError):
                raise
            except Exception as error:  # a translator may raise anything over a header
                raise UntranslatableError(_told(error)) from error

    def _observations(self, path: bytes, units: list[bytes]) -> Iterator[Observation]:
        translator, primary = _translator(units)
        uri = ResourcePath(Path(os.fsdecode(path)).as_uri())
        # Copies, for what is found here is written into later.
        found = [dict(header) for header in translator.determine_translatable_headers(uri, dict(primary))]
        if not found:
            # DECam's translator looks at extensions only; an image taken from its mosaic may have none.
            found = [primary]
        for header in found:
            detector = ObservationInfo(
                dict(header),
                translator_class=translator,
                required=set(_DETECTOR_REQUIRED),
                subset=set(_DETECTOR),
                quiet=True,
            )
            yield Observation(self._exposure(header, translator, detector), detector)

    def _exposure(
        self, header: Mapping[str, object], translator: type[MetadataTranslator], detector: ObservationInfo
    ) -> ObservationInfo:
        key = (str(detector.instrument), int(detector.exposure_id or 0))
        if key in self._exposures:
            exposure, answers = self._exposures[key]
            if says_the_same(header, answers):
                return exposure
        asked = Asked(header)
        exposure = ObservationInfo(
            asked,
            translator_class=translator,
            required=set(_EXPOSURE_REQUIRED),
            subset=set(_EXPOSURE),
            quiet=True,
        )
        self._exposures[key] = exposure, asked.answers
        if len(self._exposures) > _REMEMBERED:
            self._exposures.popitem(last=False)
        return exposure


def _translator(units: list[bytes]) -> tuple[type[MetadataTranslator], dict[str, object]]:
    """Who can translate, and the header to begin with; some instruments name themselves in the second one."""
    primary: dict[str, object] = {**values(parse(units[0]))}
    try:
        return MetadataTranslator.determine_translator(primary), primary
    except ValueError:
        pass
    merged: dict[str, object] = {**values(*map(parse, units))}
    try:
        return MetadataTranslator.determine_translator(merged), merged
    except ValueError as error:
        instrument = merged.get("INSTRUME", "none")
        raise UntranslatableError(
            f"no translator of astro_metadata_translator knows its headers (INSTRUME: {instrument})"
        ) from error


def _told(error: Exception) -> str:
    """An error with its cause; a KeyError's own text is its argument's."""
    text = str(error.args[0]) if error.args else type(error).__name__
    return " ".join((f"{text}: {error.__cause__}" if error.__cause__ else text).split())
