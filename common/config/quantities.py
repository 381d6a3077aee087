"""Durations, sizes and rates as people write them, and back."""

import re
from decimal import Decimal

from common.config.document import described

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DECIMAL = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}
_BINARY = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50}
_UNITS = {"": 1, "B": 1, "KB": 10**3} | _DECIMAL | _BINARY
# All in small letters is common and clear; "Mb" is not: it may mean bits.
_BYTES = _UNITS | {unit.lower(): factor for unit, factor in _UNITS.items()}

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PLAIN_DURATION = re.compile(_NUMBER)
_DURATION = re.compile(rf"(?:{_NUMBER} ?(?:ms|[smhdw]) ?)+", re.ASCII)
_DURATION_PART = re.compile(rf"({_NUMBER}) ?(ms|[smhdw])")
_SIZE = re.compile(rf"({_NUMBER}) ?([A-Za-z]*)", re.ASCII)
_CENTURY = 36_500 * 86_400


def duration(value: object) -> float:
    """Seconds from ``90``, ``"90s"``, ``"1.5m"``, ``"1h30m"``.

    Raises
    ------
    ValueError
        It is none, or more than a hundred years.
    """
    text = str(value).strip() if isinstance(value, (str, int, float)) else ""
    if _PLAIN_DURATION.fullmatch(text):
        seconds = float(text)
    elif _DURATION.fullmatch(text):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    else:
        examples = "seconds, or a number with a unit such as 0.5s, 5m, 36h or 30d"
        raise ValueError(f"must be {examples}, not {described(value)}")
    if seconds > _CENTURY:
        raise ValueError(f"must not be more than a hundred years, as {described(value)} is")
    return round(seconds, 6)


def size(value: object) -> int:
    """Bytes from ``1000``, ``"1kB"`` (10^3) or ``"1KiB"`` (2^10).

    Raises
    ------
    ValueError
        It is none, or has an unknown unit.
    """
    text = str(value).strip() if isinstance(value, (str, int)) else ""
    found = _SIZE.fullmatch(text)
    if not found or found[2] not in _BYTES or ("." in found[1] and _BYTES[found[2]] == 1):
        examples = "bytes, or a number with a unit such as 500kB, 100MB or 1GiB"
        raise ValueError(f"must be {examples}, not {described(value)}")
    return int(Decimal(found[1]) * _BYTES[found[2]])


def rate(value: object) -> int:
    """Bytes a second from ``1000`` or ``"200MB/s"``.

    Raises
    ------
    ValueError
        It is none.
    """
    try:
        return size(value.strip().removesuffix("/s").rstrip() if isinstance(value, str) else value)
    except ValueError as error:
        raise ValueError(f"must be bytes a second, such as 200MB/s, not {described(value)}") from error


def duration_text(seconds: float) -> str:
    """A duration in the largest unit that gives a whole number: ``90m``, ``1d``, ``0.5s``."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def size_text(count: int) -> str:
    """A size in the largest unit that says it exactly: ``256MB``, ``1.5GB``, ``1GiB``, ``1001B``."""
    for units in (_DECIMAL, _BINARY):
        for unit, factor in reversed(units.items()):
            if count >= factor and count * 10 % factor == 0:
                whole, tenths = divmod(count * 10 // factor, 10)
                return f"{whole}.{tenths}{unit}" if tenths else f"{whole}{unit}"
    return f"{count}B" if count else "0"


def rate_text(count: int) -> str:
    """A rate as ``200MB/s``."""
    return f"{size_text(count)}/s"
