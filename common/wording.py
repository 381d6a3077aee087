"""How quantities, times and paths are told: to people in few characters, to programs exactly."""

import base64
import re
from datetime import UTC, datetime

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_PLAIN = re.compile(r"[A-Za-z0-9_@%+:,./][A-Za-z0-9_@%+:,./-]*")
"""Words that no shell changes, and that no program takes for an option."""
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|[nrt\\])")
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\"}
_SPANS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def count(number: int) -> str:
    """A number with its thousands set apart: ``1,234,567``."""
    return f"{number:,}"


def files(number: int) -> str:
    """``1 file``, ``2,000 files``."""
    return f"{number:,} file" if number == 1 else f"{number:,} files"


def attempts(number: int) -> str:
    """``1 attempt``, ``10 attempts``: of those that failed."""
    return f"{number:,} attempt" if number == 1 else f"{number:,} attempts"


def size(number: float) -> str:
    """Bytes with three figures and a decimal unit: ``0 B``, ``1.50 kB``, ``999 GB``."""
    value = float(abs(number))
    sign = "-" if number < 0 else ""
    for unit in _UNITS:
        # Numbers that would be rounded up to four figures belong to the next unit.
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1000
    if unit == "B":
        return f"{sign}{value:.0f} B"
    return f"{sign}{value:.{_decimals(value)}f} {unit}"


def rate(number: float) -> str:
    """Bytes a second: ``12.0 MB/s``; ``0 B/s`` only where there are none."""
    return "<1 B/s" if 0 < number < 0.5 else f"{size(number)}/s"


def frequency(number: float) -> str:
    """Events a second with three figures at most: ``0``, ``0.25``, ``480``."""
    if number == 0:
        return "0"
    if number < 0.005:
        return "<0.01"
    return f"{number:,.{0 if number >= 99.95 else 1 if number >= 9.995 else 2}f}"


def duration(seconds: float) -> str:
    """The two largest units of a span of time: ``12 ms``, ``0.4 s``, ``3 min 5 s``, ``2 d 4 h``."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.0005 else "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for length, unit, part, part_unit in _SPANS:
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {unit} {rest} {part_unit}" if rest else f"{whole // length} {unit}"
    return f"{whole} s"


def path(value: bytes) -> str:
    """A path as one printable line: what is not printable is escaped, and a backslash doubled.

    The result can't hold a control code, so that no file name can draw on the terminal.
    """
    text = value.decode("utf-8", "surrogateescape")
    return "".join(_printable(character) for character in text)


def word(value: bytes) -> str:
    """A path as one printable word for a shell (bash, zsh, ksh), which makes the same bytes of it again.

    Plain where it can be, else in quotes: ``night/a.fits``, ``'a b.fits'``, ``$'a\\nb\\xff.fits'``.
    """
    told = path(b"./" + value if value.startswith(b"-") else value)
    if _PLAIN.fullmatch(told):
        return told
    if "'" not in told and "\\" not in told:
        return f"'{told}'"
    quoted = told.replace("'", "\\'")
    return f"$'{quoted}'"


def path_told(told: bytes) -> bytes:
    """The path that `path` tells like this; what holds no escape of its is itself."""
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1]) or bytes.fromhex(found[1][1:].decode()), told)


def tail(value: bytes, width: int) -> str:
    """A path in at most `width` characters; of a longer one the end, which tells files apart."""
    text = path(value)
    return text if len(text) <= width else f"…{text[len(text) - width + 1 :]}"


def text(value: str) -> str:
    """A message from elsewhere without control codes; its line breaks stay."""
    return "".join(character if character == "\n" else _printable(character, "\\") for character in value)


def moment(at_ms: int) -> str:
    """A time on this machine's clock, to the second, with its offset from UTC."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().isoformat(" ", "seconds")


def instant(at_ms: int) -> str:
    """The same to the millisecond, without the offset: for what follows closely upon each other."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime(f"%Y-%m-%d %H:%M:%S.{at_ms % 1000:03d}")


def minute(at_ms: int) -> str:
    """The same to the minute, without the offset: for where the eye only wants to place it."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M")


def json_moment(at_ms: int | None) -> str | None:
    """ISO 8601 in UTC, with milliseconds."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_path(value: bytes) -> str | dict[str, str]:
    """A string when it is valid UTF-8, else ``{"base64": …}``."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}


def _decimals(value: float) -> int:
    return 0 if value >= 99.5 else 1 if value >= 9.95 else 2


def _printable(character: str, verbatim: str = "") -> str:
    if character in verbatim:
        return character
    if character == "\\":
        return "\\\\"
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character.isprintable():
        return character
    if character.isascii():
        return character.encode("unicode_escape").decode("ascii")
    # Byte by byte, so that it is not told like a single byte that is not UTF-8.
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
