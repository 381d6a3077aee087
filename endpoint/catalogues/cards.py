"""The cards of FITS headers as keywords, values and comments.

What nearly all cards look like is read here; astropy, which knows the rest as well, takes ten times
longer for each. Headers with long strings or hierarchical keywords are left to it.
"""

import re

Value = bool | int | float | str | None
Card = tuple[str, Value, str]
"""A keyword, its value (None: it has none), and the comment behind the slash."""

_SIZE = 80
_COMMENTARY = ("COMMENT", "HISTORY", "")
_ASTROPYS = ("CONTINUE", "HIERARCH")
_FIELD = re.compile(
    r" *(?:'((?:[^']|'')*)'|([TF])|([+-]?\d+)|([+-]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][+-]?\d+)?)|) *(?:/ ?(.*))?"
)
"""What stands behind the equals sign: a string, a truth, an integer, a real number or nothing; a comment."""


def parse(header: bytes) -> list[Card]:
    """The cards of a header in their order, without blank ones; COMMENT and HISTORY have a text as value."""
    text = header.decode("latin-1")
    lines = [text[start : start + _SIZE] for start in range(0, len(text), _SIZE)]
    if any(line.startswith(_ASTROPYS) for line in lines):
        return _by_astropy(text)
    return [_card(line) for line in lines if line.strip()]


def values(*units: list[Card]) -> dict[str, Value]:
    """By keyword, the first card of each in its unit; a later unit's go before those of earlier ones."""
    merged: dict[str, Value] = {}
    for unit in units:
        merged.update({keyword: value for keyword, value, _ in reversed(unit) if keyword not in _COMMENTARY})
    return merged


def _card(line: str) -> Card:
    keyword = line[:8].rstrip()
    if line[8:10] != "= " or keyword in _COMMENTARY:
        return keyword, line[8:].strip(), ""
    field = _FIELD.fullmatch(line, 10)
    if field is None:  # a complex number, say, or what no standard allows: it is kept as it is
        return keyword, line[10:].strip(), ""
    string, truth, integer, real, comment = field.groups()
    return keyword, _value(string, truth, integer, real), (comment or "").rstrip()


def _value(string: str | None, truth: str | None, integer: str | None, real: str | None) -> Value:
    if string is not None:
        return string.rstrip().replace("''", "'")
    if integer is not None:
        return int(integer)
    if real is not None:
        return float(real.upper().replace("D", "E"))
    return None if truth is None else truth == "T"


def _by_astropy(text: str) -> list[Card]:
    from astropy.io import fits

    cards: list[Card] = []
    for card in fits.Header.fromstring(text).cards:
        try:
            value, comment = card.value, card.comment
        except fits.VerifyError:
            value, comment = str(card.image)[10:].strip(), ""
        if isinstance(value, fits.card.Undefined):
            value = None
        if not isinstance(value, Value):
            value = str(value)
        if card.keyword or value:
            cards.append((card.keyword, value, comment))
    return cards
