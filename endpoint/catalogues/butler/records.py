"""The dimension records of an observation, as Rubin's own ingest of raw images would write them.

Where instrument, filter or detector are registered already (`butler register-instrument` knows more of
them than a header says), they stay as they are.
"""

from collections.abc import Iterable, Iterator, Mapping

from astro_metadata_translator import ObservationInfo
from lsst.daf.butler import DimensionRecord, DimensionUniverse, Timespan
from lsst.daf.butler.registry import Registry

from endpoint.catalogues.butler.observation import Observation

Values = Mapping[str, object]

_DESCRIBED = ("instrument", "physical_filter", "detector")
"""Dimensions of which a header says little: what is there already is not compared with it."""

_REMEMBERED = 20_000
"""Records; one more than once is only a query that finds it there."""


class Records:
    """Writes the records that observations need, each once.

    Parameters
    ----------
    registry
        Of the repository.
    universe
        The repository's dimensions.
    bands
        From the name of a physical filter to that of its band; it is the filter's own where none is given.
    """

    def __init__(self, registry: Registry, universe: DimensionUniverse, bands: Mapping[str, str]) -> None:
        self._registry = registry
        self._universe = universe
        self._bands = bands
        self._written: set[DimensionRecord] = set()

    def write(self, observations: Iterable[Observation]) -> set[DimensionRecord]:
        """Write what is missing, within a transaction of the caller's, in the order of their dependence.

        Returns
        -------
            What is to be told to `remember` after the commit.

        Raises
        ------
        ConflictingDefinitionError
            An exposure, its day or its group is there with other values.
        """
        missing: dict[str, dict[DimensionRecord, None]] = {}
        for name, values in self._needed(observations):
            record = self._universe[name].RecordClass(**values)
            if record not in self._written:
                missing.setdefault(name, {})[record] = None
        for name in (*_DESCRIBED, "group", "day_obs", "exposure"):
            records = missing.get(name, {})
            if name in _DESCRIBED and records:
                self._registry.insertDimensionData(name, *records, skip_existing=True)
            elif records:
                for record in records:
                    self._registry.syncDimensionData(name, record)
        return {record for records in missing.values() for record in records}

    def remember(self, written: set[DimensionRecord]) -> None:
        """Take it that these are in the repository from now on."""
        if len(self._written) > _REMEMBERED:
            self._written.clear()
        self._written |= written

    def _needed(self, observations: Iterable[Observation]) -> Iterator[tuple[str, Values]]:
        # The detectors of an exposure share one object, most of the time.
        exposures = {}
        for observation in observations:
            exposures[id(observation.exposure)] = observation.exposure
            yield "detector", _detector(observation.detector)
        known = {"id", "obs_id"} | {field.name for field in self._universe["exposure"].metadata}
        for exposure in exposures.values():
            instrument, name = exposure.instrument, exposure.physical_filter
            yield "instrument", {"name": instrument}
            band = self._bands.get(str(name), name)
            yield "physical_filter", {"instrument": instrument, "name": name, "band": band}
            yield "group", {"instrument": instrument, "name": exposure.exposure_group}
            yield "day_obs", _day(exposure)
            yield "exposure", _exposure(exposure, known)


def _detector(info: ObservationInfo) -> Values:
    """The name in its group is empty for cameras without groups, and Butler wants nothing instead."""
    return {
        "instrument": info.instrument,
        "id": info.detector_num,
        "full_name": info.detector_unique_name or f"{info.detector_num}",
        "name_in_raft": info.detector_name or None,
        "raft": info.detector_group or None,
    }


def _day(info: ObservationInfo) -> Values:
    timespan = None
    if info.observing_day_offset is not None and info.observing_day is not None:
        offset = round(info.observing_day_offset.to_value("s"))
        timespan = Timespan.from_day_obs(info.observing_day, offset)
    return {"instrument": info.instrument, "id": info.observing_day, "timespan": timespan}


def _exposure(info: ObservationInfo, known: set[str]) -> Values:
    """Without what this repository's dimensions, which may be older ones, do not have."""
    # An end before the beginning would make a timespan without bounds.
    begin, end = info.datetime_begin, info.datetime_end
    if begin is not None and end is not None and end < begin:
        end = begin
    requested, dark = info.exposure_time_requested, info.dark_time
    values = {
        "id": info.exposure_id,
        "obs_id": info.observation_id,
        "exposure_time": None if requested is None else float(requested.to_value("s")),
        "dark_time": None if dark is None else float(dark.to_value("s")),
        "observation_type": info.observation_type or None,
        "observation_reason": info.observation_reason or None,
        "seq_num": info.observation_counter,
        "seq_start": info.group_counter_start,
        "seq_end": info.group_counter_end,
        "target_name": info.object or None,
        "science_program": info.science_program or None,
        "has_simulated": info.has_simulated_content,
        "can_see_sky": info.can_see_sky,
        **_pointing(info),
    }
    return {key: value for key, value in values.items() if key in known} | {
        "instrument": info.instrument,
        "physical_filter": info.physical_filter,
        "group": info.exposure_group,
        "day_obs": info.observing_day,
        "timespan": Timespan(begin, end),
    }


def _pointing(info: ObservationInfo) -> Values:
    """In degrees; nothing where the telescope did not look at the sky."""
    pointing: dict[str, object] = {}
    if info.tracking_radec is not None:
        sky = info.tracking_radec.icrs
        pointing |= {"tracking_ra": float(sky.ra.degree), "tracking_dec": float(sky.dec.degree)}
        if info.boresight_rotation_coord == "sky" and info.boresight_rotation_angle is not None:
            pointing["sky_angle"] = float(info.boresight_rotation_angle.degree)
    if info.altaz_begin is not None:
        pointing |= {
            "azimuth": float(info.altaz_begin.az.degree),
            "zenith_angle": float(info.altaz_begin.zen.degree),
        }
    return pointing
