"""What was worked out from a header holds for another one if that says the same to all that was asked."""

import pytest

from endpoint.catalogues.asked import Asked, says_the_same

HEADER = {"EXPNUM": 5, "CCDNUM": 1, "OBJECT": "M31"}


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        ({"EXPNUM": 5, "CCDNUM": 2, "OBJECT": "M33"}, True),
        ({"EXPNUM": 5}, True),
        ({"EXPNUM": 6, "CCDNUM": 1, "OBJECT": "M31"}, False),
        ({"EXPNUM": 5, "FILTER": "g"}, False),
        ({}, False),
    ],
)
def test_only_what_was_asked_for_counts(other: dict[str, object], is_same: bool) -> None:
    header = Asked(HEADER)
    assert (header["EXPNUM"], header.get("FILTER"), "FILTER" in header) == (5, None, False)
    assert says_the_same(other, header.answers) is is_same


def test_who_reads_all_cards_has_asked_for_all() -> None:
    header = Asked(HEADER)
    assert dict(header) == HEADER
    assert says_the_same(HEADER, header.answers)
    assert not says_the_same(HEADER | {"CCDNUM": 2}, header.answers)


def test_what_is_written_into_a_header_was_not_asked_of_it() -> None:
    header = Asked(HEADER)
    header["OBJECT"], header["CCDNUM"] = "M32", 7
    del header["EXPNUM"]
    assert (header["OBJECT"], len(header), sorted(header)) == ("M32", 2, ["CCDNUM", "OBJECT"])
    assert HEADER == {"EXPNUM": 5, "CCDNUM": 1, "OBJECT": "M31"}
    assert says_the_same({}, Asked(HEADER).answers)
