"""The images that tests and the demo send are real FITS, and the same each time."""

from itertools import islice
from math import prod

from tests.fits import night


def headers(content: bytes) -> list[dict[str, str]]:
    """Of each unit its cards; fails unless the units fill the file."""
    found = []
    start = 0
    while start < len(content):
        end = content.index(b"END" + b" " * 77, start) + 80
        lines = [content[place : place + 80].decode("ascii") for place in range(start, end, 80)]
        found.append({line[:8].rstrip(): line[10:].split(" / ")[0].strip() for line in lines})
        axes = [int(found[-1][f"NAXIS{axis}"]) for axis in range(1, int(found[-1]["NAXIS"]) + 1)]
        size = int(found[-1]["BITPIX"]) // 8 * prod(axes) if axes else 0
        start += 2880 * (-(-(end - start) // 2880) + -(-size // 2880))
    assert start == len(content)
    return found


def test_an_image_has_whole_blocks_and_as_many_pixels_as_it_says() -> None:
    (image,) = night(exposures=1, detectors=1, pixels=100)
    primary, extension = headers(image.content)
    assert list(primary)[:3] == ["SIMPLE", "BITPIX", "NAXIS"]
    assert (extension["XTENSION"], extension["NAXIS1"], extension["NAXIS2"]) == ("'IMAGE   '", "100", "100")


def test_a_header_says_what_a_catalogue_asks() -> None:
    image = next(islice(night(exposures=2, detectors=3, pixels=8), 4, None))
    header, _ = headers(image.content)
    assert image.path == "20260314/01234002/DECam_01234002_c02.fits"
    assert (header["INSTRUME"], header["EXPNUM"], header["CCDNUM"]) == ("'DECam   '", "1234002", "2")
    asked = {"OBSID", "FILTER", "EXPREQ", "MJD-OBS", "DTUTC", "OBJECT", "DATE-OBS", "TELESCOP"}
    assert asked <= header.keys()


def test_a_mosaic_has_an_extension_a_detector() -> None:
    (image,) = night(exposures=1, detectors=3, pixels=8, mosaic=True)
    primary, *extensions = headers(image.content)
    assert image.path == "20260314/01234001/DECam_01234001.fits"
    assert ("CCDNUM" in primary, primary["NEXTEND"]) == (False, "3")
    assert [extension["CCDNUM"] for extension in extensions] == ["1", "2", "3"]


def test_a_night_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    first, again, other = (list(night(exposures=2, detectors=2, pixels=8, seed=seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert len({image.content for image in first}) == 4
