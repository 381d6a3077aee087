"""True-to-life FITS images: a night of a mosaic camera, one small file a detector or an exposure.

The headers carry what DECam's raw images carry, so that programs that know such headers translate
all that they ask: a primary header for the exposure, and an extension a detector with its pixels.
Written by hand, to the FITS standard 4.0: cards of 80 characters in blocks of 2880 bytes, then the
big-endian pixels.
"""

import random
import sys
from array import array
from collections.abc import Iterator, Sequence
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
_SOUTH = (*range(29, 32), *range(25, 29), *range(20, 25), *range(14, 20), *range(8, 14), *range(1, 8))
_POSITIONS = (*(f"S{number}" for number in _SOUTH), *(f"N{number}" for number in range(1, 32)))
"""Of the detectors 1 to 62 in the focal plane."""

Card = tuple[str, Value, str]


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

    @property
    def id(self) -> str:
        """By which the observatory knows it."""
        return f"ct4m{self.begun:%Y%m%dt%H%M%S}"


def night(
    day: date = date(2026, 3, 14),
    *,
    exposures: int,
    detectors: int,
    pixels: int = 256,
    first_number: int = 1_234_001,
    seed: int = 0,
    mosaic: bool = False,
) -> Iterator[Image]:
    """The images of a night, an exposure after the other; the same ones for the same arguments.

    An image is a square with so many `pixels` a side, and its path is
    ``<day>/<exposure number>/DECam_<exposure number>_c<detector>.fits``; a `mosaic` has all
    detectors in one file, and its path ends in ``DECam_<exposure number>.fits``.
    """
    dice = random.Random(f"{day} {seed}")
    for exposure in _exposures(day, range(first_number, first_number + exposures), dice):
        stem = f"{day:%Y%m%d}/{exposure.number:08d}/DECam_{exposure.number:08d}"
        if mosaic:
            yield Image(f"{stem}.fits", image(exposure, range(1, detectors + 1), pixels, dice))
            continue
        for detector in range(1, detectors + 1):
            yield Image(f"{stem}_c{detector:02d}.fits", image(exposure, [detector], pixels, dice))


def _exposures(day: date, numbers: Sequence[int], dice: random.Random) -> Iterator[Exposure]:
    begun = datetime.combine(day, time(23, 58), UTC)
    for number in numbers:
        field, ra, dec = dice.choice(_FIELDS)
        seconds = dice.choice((30.0, 90.0, 180.0))
        yield Exposure(number, begun, seconds, dice.choice(_FILTERS), field, ra, dec)
        begun += timedelta(seconds=seconds) + _READOUT


def image(exposure: Exposure, detectors: Sequence[int], pixels: int, dice: random.Random) -> bytes:
    """A whole FITS file: 16-bit integers, sky with noise."""
    # What is the exposure's own is the same in each of its files, so its dice start anew.
    primary = chain(_no_data(len(detectors)), _observation(exposure, random.Random(exposure.number)))
    if len(detectors) == 1:  # as where an archive has taken a mosaic apart
        primary = chain(primary, _place(detectors[0]))
    return _header(primary) + b"".join(_extension(exposure, detector, pixels, dice) for detector in detectors)


def _extension(exposure: Exposure, detector: int, pixels: int, dice: random.Random) -> bytes:
    header = _header(chain(_structure(detector, pixels), _detector(exposure, detector, dice)))
    # Unsigned 16-bit counts are stored minus BZERO. One draw gives all the noise: 8 bits a pixel.
    level = dice.randint(800, 2000) - 32768
    data = array("h", (level + noise for noise in dice.randbytes(pixels * pixels)))
    if sys.byteorder == "little":
        data.byteswap()
    return header + _padded(data.tobytes(), b"\0")


def _no_data(extensions: int) -> Iterator[Card]:
    yield "SIMPLE", True, "file does conform to FITS standard"
    yield "BITPIX", 16, "number of bits per data pixel"
    yield "NAXIS", 0, "number of data axes"
    yield "EXTEND", True, "FITS dataset may contain extensions"
    yield "NEXTEND", extensions, "Number of extensions"


def _structure(detector: int, pixels: int) -> Iterator[Card]:
    yield "XTENSION", "IMAGE", "Image extension"
    yield "BITPIX", 16, "number of bits per data pixel"
    yield "NAXIS", 2, "number of data axes"
    yield "NAXIS1", pixels, "length of data axis 1"
    yield "NAXIS2", pixels, "length of data axis 2"
    yield "PCOUNT", 0, "Heap size"
    yield "GCOUNT", 1, "One data group"
    yield "BZERO", 32768, "offset data range to that of unsigned short"
    yield "BSCALE", 1, "default scaling factor"
    yield "EXTNAME", _POSITIONS[detector - 1], "Extension name"
    yield "EXTVER", detector, "Extension version"
    yield "INHERIT", True, "Inherits global header"


def _observation(exposure: Exposure, dice: random.Random) -> Iterator[Card]:
    """What all detectors of an exposure have in common."""
    closed = exposure.begun + timedelta(seconds=exposure.seconds)
    yield "OBSERVAT", "CTIO", "Observatory name"
    yield "TELESCOP", "CTIO 4.0-m telescope", "Telescope name"
    yield "INSTRUME", "DECam", "Instrument used to obtain these data"
    yield "OBSID", exposure.id, "Unique Observation ID"
    yield "EXPNUM", exposure.number, "DECam exposure number"
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
    yield "TELFOCUS", "133.17,-2816.75,2114.33,130.19,-68.99,-0.00", "DECam hexapod settings"
    yield "OBS-LAT", -30.16606, "[deg] Observatory latitude"
    yield "OBS-LONG", 70.81489, "[deg] Observatory west longitude"
    yield "OBS-ELEV", 2215.0, "[m] Observatory elevation"
    yield "AIRMASS", round(dice.uniform(1.0, 1.8), 2), "Airmass"
    yield "ZD", round(dice.uniform(5, 50), 2), "[deg] Telescope zenith distance"
    yield "AZ", round(dice.uniform(0, 360), 4), "[deg] Telescope azimuth angle"
    yield "PRESSURE", round(dice.uniform(777, 783), 1), "[Torr] Barometric pressure"
    yield "HUMIDITY", round(dice.uniform(10, 60), 1), "[%] Outside humidity"
    yield "OUTTEMP", round(dice.uniform(5, 18), 1), "[deg C] Outside temperature"
    yield "DIMMSEE", round(dice.uniform(0.6, 1.6), 3), "[arcsec] DIMM seeing"


def _place(detector: int) -> Iterator[Card]:
    yield "CCDNUM", detector, "CCD number"
    yield "DETPOS", _POSITIONS[detector - 1], "Mosaic detector position ID"


def _detector(exposure: Exposure, detector: int, dice: random.Random) -> Iterator[Card]:
    yield from _place(detector)
    yield "DETECTOR", f"S3-{detector:03d}_123195-{detector:02d}-3", "Detector Identifier"
    yield "DETSEC", f"[1:2048,{(detector - 1) * 4096 + 1}:{detector * 4096}]", "Detector section"
    yield "FILENAME", f"DECam_{exposure.number:08d}.fits", "Filename"
    yield "GAINA", round(dice.uniform(3.8, 4.6), 6), "[e-/ADU] Gain for amp A"
    yield "RDNOISEA", round(dice.uniform(5.0, 7.5), 6), "[e-] Read noise for amp A"
    yield "SATURATA", 65535, "[ADU] Saturation for amp A"


def _header(cards: Iterator[Card]) -> bytes:
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
