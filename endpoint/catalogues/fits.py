"""The structure of a FITS file: its header units, and whether all the data that they promise is there.

To the FITS standard 4.0, with the standard library alone. Pixels are not read: their place follows
from the headers, and whether they are there from the file's size.
"""

import os
import re
from math import prod
from typing import BinaryIO

_BLOCK = 2880
_CARD = 80
_END = re.compile(rb"END {77}")
_LONGEST_HEADER = 32 << 20
"""Bytes. A file that goes on for so long without an END card is no FITS."""
_INTEGER = re.compile(rb" *([+-]?\d+) *(?:/.*)?", re.DOTALL)


class FitsError(Exception):
    """Why a file cannot be read as FITS, in a sentence."""


def headers(path: bytes, *, most: int | None = None) -> list[bytes]:
    """The header of each unit of a file, as whole cards without END, in their order.

    Parameters
    ----------
    path
        Of the file.
    most
        So many headers at most are returned; the rest of the file is examined all the same.

    Raises
    ------
    FitsError
        It is no FITS file, or is shorter than its headers promise.
    OSError
        It can't be read.
    """
    found: list[bytes] = []
    with open(path, "rb", buffering=_BLOCK * 4) as file:
        size = os.fstat(file.fileno()).st_size
        start = 0
        while start < size:
            header = _header(file, start, size)
            if header is None:  # what follows the last unit is none of ours: the standard's "special records"
                break
            if most is None or len(found) < most:
                found.append(header)
            data = _data_size(header)
            # Its end must be there. Some writers leave the filling of the last block away.
            start += _blocks(len(header) + _CARD)
            if start + data > size:
                missing = start + data - size
                raise FitsError(
                    f"truncated: {missing} bytes of the data that its headers promise are missing"
                )
            start += _blocks(data)
    if not found:
        raise FitsError("no FITS file: it is empty")
    return found


def _header(file: BinaryIO, start: int, size: int) -> bytes | None:
    """The cards of the unit that begins at `start`; None when something else follows the last one."""
    file.seek(start)
    cards = file.read(_BLOCK)
    begins = b"XTENSION=" if start else b"SIMPLE  ="
    if not cards.startswith(begins):
        if start and not begins.startswith(cards):
            return None
        if start:
            raise FitsError("truncated: it ends within a header")
        raise FitsError(f"no FITS file: it does not begin with SIMPLE{_compression(cards)}")
    searched = 0
    while (end := _end(cards, searched)) is None:
        searched = len(cards)
        if searched > _LONGEST_HEADER:
            raise FitsError("no FITS file: a header without END")
        if start + searched >= size:
            raise FitsError("truncated: it ends within a header")
        cards += file.read(_BLOCK)
    return cards[:end]


def _end(cards: bytes, searched: int) -> int | None:
    """Where the END card begins, if it is there after what has been searched."""
    for found in _END.finditer(cards, searched):
        if found.start() % _CARD == 0:
            return found.start()
    return None


def _compression(content: bytes) -> str:
    known = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
    for magic, program in known.items():
        if content.startswith(magic):
            return f" but is compressed by {program}"
    return ""


def _data_size(header: bytes) -> int:
    """In bytes, without the filling of the last block (standard 4.0, equations 1, 2 and 4)."""
    axes = [_integer(header, f"NAXIS{axis}") for axis in range(1, _integer(header, "NAXIS") + 1)]
    if not axes:
        return 0
    groups = _integer(header, "GCOUNT", 1)
    parameters = _integer(header, "PCOUNT", 0)
    if axes[0] == 0:  # random groups, or nothing
        if (_value(header, "GROUPS") or b"").strip()[:1] != b"T":
            return 0
        axes = axes[1:]
    return abs(_integer(header, "BITPIX")) // 8 * groups * (parameters + prod(axes))


def _integer(header: bytes, keyword: str, default: int | None = None) -> int:
    value = _value(header, keyword)
    if value is None and default is not None:
        return default
    number = _INTEGER.fullmatch(value or b"")
    if number is None or (int(number[1]) < 0 and keyword != "BITPIX"):
        raise FitsError(f"no FITS file: a header has no {keyword}, or no number there")
    return int(number[1])


def _value(header: bytes, keyword: str) -> bytes | None:
    """What stands behind the equals sign, the comment included."""
    name = keyword.encode("ascii").ljust(8) + b"="
    place = header.find(name)
    while place >= 0 and place % _CARD:
        place = header.find(name, place + 1)
    return None if place < 0 else header[place + len(name) : place + _CARD]


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
