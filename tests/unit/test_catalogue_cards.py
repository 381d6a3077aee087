"""Headers are read as astropy reads them, and what no standard allows is kept as it is."""

import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from endpoint.catalogues.cards import Card, parse, values


def header(*lines: str) -> bytes:
    return "".join(f"{line:80}" for line in lines).encode("latin-1")


@pytest.mark.parametrize(
    ("line", "card"),
    [
        ("SIMPLE  =                    T / conforms", ("SIMPLE", True, "conforms")),
        ("EXTEND  = F", ("EXTEND", False, "")),
        ("EXPNUM  =              1234001 / number", ("EXPNUM", 1234001, "number")),
        ("NEGATIVE=                   -1", ("NEGATIVE", -1, "")),
        (
            "EXPTIME =                 30.0 / [s] time / of exposure",
            ("EXPTIME", 30.0, "[s] time / of exposure"),
        ),
        ("SMALL   =             1.5D-003", ("SMALL", 0.0015, "")),
        ("OBJECT  = 'M31     '           / name", ("OBJECT", "M31", "name")),
        ("OBSERVER= 'O''Neill / Smith'   / who", ("OBSERVER", "O'Neill / Smith", "who")),
        ("EMPTY   = ''", ("EMPTY", "", "")),
        ("NOTHING =                      / no value", ("NOTHING", None, "no value")),
        ("COMMENT = what looks like a value", ("COMMENT", "= what looks like a value", "")),
        ("HISTORY it was flattened", ("HISTORY", "it was flattened", "")),
        ("COMPLEX = (1.0, 2.0)", ("COMPLEX", "(1.0, 2.0)", "")),
        ("OPEN    = 'no end", ("OPEN", "'no end", "")),
        ("FREE text without a value", ("FREE tex", "t without a value", "")),
        ("NAME    = 'caf\xe9'", ("NAME", "caf\xe9", "")),
    ],
)
def test_a_card_is_its_keyword_value_and_comment(line: str, card: Card) -> None:
    assert parse(header(line, "")) == [card]


def test_long_strings_and_hierarchical_keywords_are_read_too() -> None:
    text = "a long string " * 12
    made = fits.Header([("LONG", text.strip(), "long"), ("HIERARCH ESO TEL", 5, "five"), ("SHORT", 1.5, "")])
    found = parse(made.tostring(endcard=False, padding=False).encode("ascii"))
    assert found == [("LONG", text.strip(), "long"), ("ESO TEL", 5, "five"), ("SHORT", 1.5, "")]


_VALUES = st.one_of(
    st.booleans(),
    st.integers(-(10**19), 10**19),
    st.floats(allow_nan=False, allow_infinity=False),
    # Even of quotation marks alone, which are doubled, so many leave room for a comment of ten characters.
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=27).map(str.rstrip),
)


@given(_VALUES, st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=10))
def test_what_astropy_writes_is_read_back(value: bool | int | float | str, comment: str) -> None:
    made = str(fits.Card("KEY", value, comment))
    # Not every digit of a number is written; and of a string, astropy itself misreads '' before a lone '.
    expected = value if isinstance(value, str) else fits.Card.fromstring(made).value
    assert parse(made.encode("ascii")) == [("KEY", expected, comment)]


def test_the_first_of_equal_cards_counts_and_an_extension_goes_before_the_primary_header() -> None:
    primary = parse(header("A       = 1", "A       = 2", "B       = 3", "COMMENT text"))
    assert values(primary, parse(header("B       = 4"))) == {"A": 1, "B": 4}
