"""How Butler reads a raw FITS image.

A repository keeps the dotted name of `FitsRawFormatter` for each file, so that it can be read only
where this module can be imported, and the name must never change.
"""

from typing import ClassVar

from astro_metadata_translator import MetadataTranslator, merge_headers
from astropy.io import fits
from lsst.daf.butler import FormatterV2


class FitsRawFormatter(FormatterV2):
    """Reads one detector's units: the primary one, and its own where the file has several detectors.

    The component ``header`` is both units' cards in one header, the detector's own winning.
    """

    supported_extensions: ClassVar[frozenset[str]] = frozenset({".fits", ".fit", ".fts", ".fits.fz", ".fz"})
    can_read_from_local_file: ClassVar[bool] = True

    def read_from_local_file(
        self, path: str, component: str | None = None, expected_size: int = -1
    ) -> fits.HDUList | fits.Header:
        """Read the whole dataset, or its header alone, which leaves the pixels where they are."""
        with fits.open(path, memmap=False) as units:
            chosen = self._chosen(units)
            if component == "header":
                return _merged([unit.header for unit in chosen])
            for unit in chosen:
                _ = unit.data  # is read at the first look, for which the file must be open
            return fits.HDUList(chosen)

    def _chosen(self, units: fits.HDUList) -> list[fits.PrimaryHDU | fits.ImageHDU]:
        primary, *others = units
        if not others:
            return [primary]
        detector = self.data_id["detector"]
        own = [unit for unit in others if _detector(primary.header, unit.header) == detector]
        return [primary, *(own or others)]


def _merged(headers: list[fits.Header]) -> fits.Header:
    """One header of several; the keywords that describe a unit's structure are the last one's."""
    merged = headers[0].copy()
    for header in headers[1:]:
        merged.update(header)
    return merged


def _detector(primary: fits.Header, own: fits.Header) -> int | None:
    """The number of the detector to which a unit belongs, if it tells."""
    header = merge_headers([dict(primary), dict(own)], mode="overwrite")
    try:
        return int(MetadataTranslator.determine_translator(header)(header).to_detector_num())
    except (KeyError, TypeError, ValueError):
        return None
