"""The images that tests and the demo send are real FITS, and the same each time."""

from itertools import islice

from tests.fits import night


def cards(content: bytes) -> dict[str, str]:
    header = content[: content.index(b"END" + b" " * 77) + 80].decode("ascii")
    lines = [header[start : start + 80] for start in range(0, len(header), 80)]
    return {line[:8].rstrip(): line[10:].split(" / ")[0].strip() for line in lines}


def test_an_image_has_whole_blocks_and_as_many_pixels_as_it_says() -> None:
    (image,) = night(exposures=1, detectors=1, pixels=100)
    header = cards(image.content)
    header_size = 2880 * -(-(len(header) * 80) // 2880)
    data_size = int(header["NAXIS1"]) * int(header["NAXIS2"]) * int(header["BITPIX"]) // 8
    assert len(image.content) == header_size + 2880 * -(-data_size // 2880)
    assert list(header)[:3] == ["SIMPLE", "BITPIX", "NAXIS"]


def test_a_header_says_what_a_catalogue_asks() -> None:
    image = next(islice(night(exposures=2, detectors=3, pixels=8), 4, None))
    header = cards(image.content)
    assert image.path == "20260314/01234002/DECam_01234002_c02.fits"
    assert (header["INSTRUME"], header["EXPNUM"], header["CCDNUM"]) == ("'DECam   '", "1234002", "2")
    asked = {"OBSID", "FILTER", "EXPREQ", "MJD-OBS", "DTUTC", "OBJECT", "DATE-OBS", "TELESCOP"}
    assert asked <= header.keys()


def test_a_night_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    first, again, other = (list(night(exposures=2, detectors=2, pixels=8, seed=seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert len({image.content for image in first}) == 4
