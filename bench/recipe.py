"""A plain loop that ingests images into a Butler repository: the least that a user would write.

Headers are translated by astro-metadata-translator, and 20 files are registered in a transaction.
Nothing is remembered from one file to the next, nothing is checked, and a kill leaves it to the user to
find out what is there.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from astro_metadata_translator import ObservationInfo, merge_headers
from astropy.io import fits
from astropy.utils.data import conf
from lsst.daf.butler import (
    Butler,
    Config,
    DataCoordinate,
    DatasetIdGenEnum,
    DatasetRef,
    DatasetType,
    FileDataset,
    Timespan,
)
from lsst.resources import ResourcePath

from endpoint.catalogues.butler.formatter import FitsRawFormatter
from endpoint.catalogues.butler.repository import SEED

_AT_ONCE = 20


def ingest(repository: Path, paths: Sequence[Path]) -> None:
    """Make the repository and ingest all of them."""
    conf.allow_internet = False  # a translator looks the observatory's site up
    Butler.makeRepo(str(repository), config=Config.fromYaml(SEED.read_text()))
    with Butler.from_config(str(repository), writeable=True) as butler:
        dimensions = ("instrument", "detector", "exposure")
        raw = DatasetType("raw", dimensions, "FitsRaw", universe=butler.dimensions)
        butler.registry.registerDatasetType(raw)
        butler.collections.register("DECam/raw/all")
        for start in range(0, len(paths), _AT_ONCE):
            batch = [(path, _observed(path)) for path in paths[start : start + _AT_ONCE]]
            with butler.transaction():
                for _, info in batch:
                    _describe(butler, info)
                files = [_dataset(butler, raw, path, info) for path, info in batch]
                butler.ingest(*files, transfer="direct")


def _observed(path: Path) -> ObservationInfo:
    with fits.open(path) as units:
        header = merge_headers([units[0].header, units[1].header], mode="overwrite")
    return ObservationInfo(header, filename=str(path))


def _describe(butler: Butler, info: ObservationInfo) -> None:
    """Every dimension record that the file needs, whether it is there or not."""
    registry = butler.registry
    for dimension, record in _described(info):
        registry.insertDimensionData(dimension, record, skip_existing=True)
    for dimension, record in _exposed(info):
        registry.syncDimensionData(dimension, record)


def _described(info: ObservationInfo) -> Iterator[tuple[str, Mapping[str, object]]]:
    name, camera = info.physical_filter, info.instrument
    yield "instrument", {"name": camera}
    yield "physical_filter", {"instrument": camera, "name": name, "band": name}
    full_name = info.detector_unique_name or str(info.detector_num)
    yield "detector", {"instrument": camera, "id": info.detector_num, "full_name": full_name}


def _exposed(info: ObservationInfo) -> Iterator[tuple[str, Mapping[str, object]]]:
    yield "group", {"instrument": info.instrument, "name": info.exposure_group}
    yield "day_obs", {"instrument": info.instrument, "id": info.observing_day}
    requested = info.exposure_time_requested
    yield (
        "exposure",
        {
            "instrument": info.instrument,
            "id": info.exposure_id,
            "obs_id": info.observation_id,
            "physical_filter": info.physical_filter,
            "group": info.exposure_group,
            "day_obs": info.observing_day,
            "exposure_time": None if requested is None else float(requested.to_value("s")),
            "target_name": info.object,
            "timespan": Timespan(info.datetime_begin, info.datetime_end),
        },
    )


def _dataset(butler: Butler, raw: DatasetType, path: Path, info: ObservationInfo) -> FileDataset:
    place = DataCoordinate.standardize(
        instrument=info.instrument,
        exposure=info.exposure_id,
        detector=info.detector_num,
        universe=butler.dimensions,
    )
    ref = DatasetRef(raw, place, "DECam/raw/all", id_generation_mode=DatasetIdGenEnum.DATAID_TYPE_RUN)
    return FileDataset(ResourcePath(path.as_uri()), ref, formatter=FitsRawFormatter)
