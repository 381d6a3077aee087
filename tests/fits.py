"""True-to-life FITS images: a night of a mosaic camera, one small file a detector.

The primary header carries what a DECam raw image carries, so that programs that know such headers
can read these. Written by hand, to the FITS standard 4.0: cards of 80 characters in blocks of 2880
bytes, then the big-endian pixels.
"""

import random
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain

Value = bool | int | float | str

_BLOCK = 2880
_MJD_EPOCH = datetime(1858, 11, 17, tzinfo=UTC)
_FILTERS = (
    "u DECam c0006 3500.0 1000.0",
    "g DECam SDSS c0001 4720.0 1520.0",
    "r DECam SDSS c0002 6415.0 1480.0",
    "i DECam SDSS c0003 7835.0 1470.0",
    "z DECam SDSS c0004 9260.0 1520.0",
    "Y DECam c0005 10095.0 1130.0",
)
_FIELDS = (("COSMOS", 150.1, 2.2), ("ELAIS-S1", 9.5, -43.9), ("XMM-LSS", 35.6, -4.8), ("CDFS", 52.9, -28.1))
_READOUT = timedelta(seconds=29)


@dataclass(frozen=True, slots=True)
class Image:
    """A FITS file: its path below a buffer, and its content."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Exposure:
    """One opening of the shutter: what all detectors' headers have in common."""

    number: int
    begun: datetime
    seconds: float
    filter: str
    field: str
    ra: float
    """Of the pointing, in degrees, as `dec`."""
    dec: float


def night(
    day: date = date(2026, 3, 14),
    *,
    exposures: int,
    detectors: int,
    pixels: int = 256,
    first_number: int = 1_234_001,
    seed: int = 0,
) -> Iterator[Image]:
    """The images of a night, an exposure after the other; the same ones for the same arguments.

    An image is a square with so many `pixels` a side, and its path is
    ``<day>/<exposure number>/DECam_<exposure number>_c<detector>.fits``.
    """
    dice = random.Random(f"{day} {seed}")
    begun = datetime.combine(day, time(23, 58), UTC)
    for number in range(first_number, first_number + exposures):
        field, ra, dec = dice.choice(_FIELDS)
        seconds = dice.choice((30.0, 90.0, 180.0))
        exposure = Exposure(number, begun, seconds, dice.choice(_FILTERS), field, ra, dec)
        for detector in range(1, detectors + 1):
            path = f"{day:%Y%m%d}/{number:08d}/DECam_{number:08d}_c{detector:02d}.fits"
            yield Image(path, image(exposure, detector, pixels, dice))
        begun += timedelta(seconds=seconds) + _READOUT


def image(exposure: Exposure, detector: int, pixels: int, dice: random.Random) -> bytes:
    """A whole FITS file of one detector: 16-bit integers, sky with noise."""
    header = _header(chain(_structure(pixels), _observation(exposure, detector, dice)))
    # Unsigned 16-bit counts are stored minus BZERO. One draw gives all the noise: 8 bits a pixel.
    level = dice.randint(800, 2000) - 32768
    data = array("h", (level + noise for noise in dice.randbytes(pixels * pixels)))
    if sys.byteorder == "little":
        data.byteswap()
    return header + _padded(data.tobytes(), b"\0")


def _structure(pixels: int) -> Iterator[tuple[str, Value, str]]:
    yield "SIMPLE", True, "file does conform to FITS standard"
    yield "BITPIX", 16, "number of bits per data pixel"
    yield "NAXIS", 2, "number of data axes"
    yield "NAXIS1", pixels, "length of data axis 1"
    yield "NAXIS2", pixels, "length of data axis 2"
    yield "BZERO", 32768, "offset data range to that of unsigned short"
    yield "BSCALE", 1, "default scaling factor"


def _observation(exposure: Exposure, detector: int, dice: random.Random) -> Iterator[tuple[str, Value, str]]:
    closed = exposure.begun + timedelta(seconds=exposure.seconds)
    yield "OBSERVAT", "CTIO", "Observatory name"
    yield "TELESCOP", "CTIO 4.0-m telescope", "Telescope name"
    yield "INSTRUME", "DECam", "Instrument used to obtain these data"
    yield "OBSID", f"ct4m{exposure.begun:%Y%m%dt%H%M%S}", "Unique Observation ID"
    yield "EXPNUM", exposure.number, "DECam exposure number"
    yield "CCDNUM", detector, "CCD number"
    yield "DETSEC", f"[1:2048,{(detector - 1) * 4096 + 1}:{detector * 4096}]", "Detector section"
    yield "PROCTYPE", "RAW", "Data processing level"
    yield "PRODTYPE", "image", "Data product type"
    yield "OBSTYPE", "object", "Observation type"
    yield "OBJECT", exposure.field, "Name of the observed object"
    yield "PROPID", "2026A-0001", "Proposal ID"
    yield "FILTER", exposure.filter, "Unique filter identifier"
    yield "EXPREQ", exposure.seconds, "[s] Requested exposure duration"
    yield "EXPTIME", exposure.seconds, "[s] Exposure duration"
    yield "DARKTIME", exposure.seconds + 1.04, "[s] Dark time"
    yield "DATE-OBS", f"{exposure.begun:%Y-%m-%dT%H:%M:%S.%f}", "UTC epoch"
    yield "DTUTC", f"{closed:%Y-%m-%dT%H:%M:%S}", "post exposure UTC epoch"
    yield "TIMESYS", "UTC", "Time system"
    yield "MJD-OBS", round((exposure.begun - _MJD_EPOCH) / timedelta(days=1), 8), "MJD of observation start"
    yield "RADESYS", "ICRS", "Coordinate reference system"
    yield "EQUINOX", 2000.0, "Equinox of coordinates"
    yield "TELRA", _sexagesimal(exposure.ra / 15), "Telescope RA"
    yield "TELDEC", _sexagesimal(exposure.dec), "Telescope DEC"
    yield "AIRMASS", round(dice.uniform(1.0, 1.8), 2), "Airmass"
    yield "HUMIDITY", round(dice.uniform(10, 60), 1), "[%] Outside humidity"
    yield "OUTTEMP", round(dice.uniform(5, 18), 1), "[deg C] Outside temperature"
    yield "DIMMSEE", round(dice.uniform(0.6, 1.6), 3), "[arcsec] DIMM seeing"
    yield "GAINA", round(dice.uniform(3.8, 4.6), 6), "[e-/ADU] Gain for amp A"
    yield "RDNOISEA", round(dice.uniform(5.0, 7.5), 6), "[e-] Read noise for amp A"
    yield "SATURATA", 65535, "[ADU] Saturation for amp A"


def _header(cards: Iterator[tuple[str, Value, str]]) -> bytes:
    text = "".join(_card(keyword, value, comment) for keyword, value, comment in cards)
    return _padded(f"{text}{'END':80}".encode("ascii"), b" ")


def _card(keyword: str, value: Value, comment: str) -> str:
    """One line in fixed format: numbers end in column 30, strings begin in column 11."""
    if isinstance(value, bool):
        field = f"{'T' if value else 'F':>20}"
    elif isinstance(value, str):
        quoted = "'" + f"{value.replace(chr(39), chr(39) * 2):8}" + "'"
        field = f"{quoted:20}"
    else:
        field = f"{value!r:>20}"
    return f"{keyword:8}= {field} / {comment}"[:80].ljust(80)


def _padded(content: bytes, filling: bytes) -> bytes:
    return content + filling * (-len(content) % _BLOCK)


def _sexagesimal(value: float) -> str:
    tenths = round(abs(value) * 36000)
    minutes, seconds = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{'-' if value < 0 else ''}{hours:02d}:{minutes:02d}:{seconds / 10:04.1f}"
