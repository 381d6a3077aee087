"""A file is FITS, and whole, or it is said why it is not."""

from pathlib import Path

import pytest

from endpoint.catalogues.fits import FitsError, headers
from tests.fits import night

ONE = next(night(exposures=1, detectors=1, pixels=50)).content
# So many pixels fill whole blocks: there is nothing between two units.
MOSAIC = next(night(exposures=1, detectors=3, pixels=120, mosaic=True)).content


def written(directory: Path, content: bytes) -> bytes:
    path = directory / "image.fits"
    path.write_bytes(content)
    return bytes(path)


def made(*cards: str, data: int = 0) -> bytes:
    """A unit with these cards and so many bytes of data, without the last block's filling."""
    header = "".join(f"{card:80}" for card in (*cards, "END")).encode("ascii")
    return header + b" " * (-len(header) % 2880) + bytes(data)


def test_each_unit_gives_its_header(tmp_path: Path) -> None:
    found = headers(written(tmp_path, MOSAIC))
    assert [header[:8] for header in found] == [b"SIMPLE  ", *[b"XTENSION"] * 3]
    assert all(len(header) % 80 == 0 and b"END      " not in header for header in found)


def test_no_more_headers_are_returned_than_are_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, MOSAIC)
    assert headers(path, most=2) == headers(path)[:2]


@pytest.mark.parametrize("content", [ONE, MOSAIC], ids=["one", "mosaic"])
def test_a_file_cut_anywhere_within_a_unit_is_truncated(content: bytes, tmp_path: Path) -> None:
    between = {content.find(b"XTENSION", place) for place in range(len(content))}
    for size in range(80, len(content) - 2880, 97):
        if size not in between:
            with pytest.raises(FitsError, match="truncated"):
                headers(written(tmp_path, content[:size]))


def test_the_filling_behind_the_data_may_be_missing(tmp_path: Path) -> None:
    cards = ("SIMPLE  =                    T", "BITPIX  =                   16 / bits", "NAXIS   = 1")
    path = written(tmp_path, made(*cards, "NAXIS1  = 100", data=200))
    assert len(headers(path)) == 1


@pytest.mark.parametrize(
    ("cards", "data"),
    [
        (("BITPIX  =                   -64", "NAXIS   = 2", "NAXIS1  = 10", "NAXIS2  = 10"), 800),
        (("BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 10", "NAXIS2  = 10", "PCOUNT  = 50"), 150),
        (("BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 0", "NAXIS2  = 9", "GROUPS  = T", "PCOUNT  = 1"), 20),
        (("BITPIX  = 16", "NAXIS   = 1", "NAXIS1  = 10", "PCOUNT  = 5", "GCOUNT  = 3"), 90),
        (("BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 0", "NAXIS2  = 10"), 0),
        (("BITPIX  = 16", "NAXIS   = 0"), 0),
    ],
)  # fmt: skip
def test_the_size_of_data_follows_from_the_header(cards: tuple[str, ...], data: int, tmp_path: Path) -> None:
    content = made("SIMPLE  = T", *cards, data=data)
    assert len(headers(written(tmp_path, content))) == 1
    if data:
        with pytest.raises(FitsError, match="truncated: 1 bytes"):
            headers(written(tmp_path, content[:-1]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"hello", "does not begin with SIMPLE"),
        (b"\x1f\x8b and so on", "compressed by gzip"),
        (b"\0" * 5000, "does not begin with SIMPLE"),
        (made("SIMPLE  = T", "NAXIS   = 1", "NAXIS1  = 5"), "has no BITPIX"),
        (made("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 5"), "has no NAXIS2"),
        (made("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 1", "NAXIS1  = -5"), "has no NAXIS1"),
        (made("SIMPLE  = T", "BITPIX  = 'x'", "NAXIS   = 1", "NAXIS1  = 5"), "has no BITPIX"),
        (made("SIMPLE  = T", "BITPIX  = 8"), "has no NAXIS"),
        (b"SIMPLE  = T" + b" " * 6000, "ends within a header"),
    ],
)
def test_what_is_no_fits_is_told_why(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(FitsError, match=reason):
        headers(written(tmp_path, content))


def test_what_follows_the_last_unit_is_left_alone(tmp_path: Path) -> None:
    assert len(headers(written(tmp_path, ONE + b"special records" + bytes(3000)))) == 2
