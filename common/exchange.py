"""What the two managers leave for each other in the endpoint's staging: delivery notes and receipts."""

import base64
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol, cast

from common.files import Algorithm, Checksum
from common.wording import json_moment, json_path

if TYPE_CHECKING:  # many workers read neither
    from common.ledger.rows import Origin, Receipt

RECEIPT_STATES = ("stored", "ingested")
"""What a receipt may tell of a file."""
_DIGITS = {"sha256": 64, "blake2b": 128}
_NONSENSE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
_TOLD = 10
"""So many lines of a note that make no sense are told each by itself."""
_HOPELESS = 1000
"""A note with so many of them is read no further."""
_NAME = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9._-]*\.jsonl")


class Delivered(Protocol):
    """A file as a delivery note tells it."""

    @property
    def path(self) -> bytes: ...
    @property
    def size(self) -> int: ...
    @property
    def checksum(self) -> Checksum: ...


@dataclass(frozen=True, slots=True)
class Receipts:
    """What the endpoint manager says has become of what was delivered."""

    files: "Mapping[bytes, tuple[Receipt | None, ...]]" = field(default_factory=dict)
    """The lines of each file that they came in; None for one that makes no sense."""
    malformed: tuple[str, ...] = ()
    """What is wrong with those, each told with its file."""

    @property
    def records(self) -> "tuple[Receipt, ...]":
        """All that make sense."""
        return tuple(record for lines in self.files.values() for record in lines if record)

    @property
    def names(self) -> tuple[bytes, ...]:
        """Of the files, to be removed once what is in them has been noted."""
        return tuple(self.files)


def delivery_note(files: Iterable[Delivered], sent: str) -> bytes:
    """The lines of a note (CONTRACT §5); `sent` is a time in ISO 8601, UTC."""
    lines = [
        {
            "path": json_path(file.path),
            "size": file.size,
            "algorithm": file.checksum.algorithm,
            "digest": file.checksum.digest,
            "sent": sent,
        }
        for file in files
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def is_plain_name(name: bytes) -> bool:
    """Whether a name is one that notes and receipts have: nothing else is read or removed."""
    return _NAME.fullmatch(name) is not None


def read_receipts(contents: Mapping[bytes, bytes]) -> Receipts:
    """Read the contents of receipts by their names; what makes no sense is told and passed over."""
    files: dict[bytes, tuple[Receipt | None, ...]] = {}
    malformed: list[str] = []
    for name, content in contents.items():
        lines: list[Receipt | None] = []
        for number, line in enumerate(content.splitlines(), 1):
            try:
                lines.append(_receipt(line))
            except _NONSENSE as error:
                lines.append(None)
                malformed.append(f"{name.decode()}:{number}: {_nonsense(error)}")
        files[name] = tuple(lines)
    return Receipts(files, tuple(malformed))


def read_note(name: bytes, content: bytes) -> "tuple[tuple[Origin, ...], tuple[str, ...]]":
    """The lines of a delivery note, and what is wrong with those that make no sense."""
    origins: list[Origin] = []
    malformed: list[str] = []
    called, senseless = os.fsdecode(name), 0
    for number, line in enumerate(BytesIO(content), 1):
        try:
            origins.append(_origin(name, line))
        except _NONSENSE as error:
            senseless += 1
            if senseless <= _TOLD:
                malformed.append(f"{called}:{number}: {_nonsense(error)}")
            if senseless == _HOPELESS:
                malformed.append(f"{called}: it is read no further than line {number:,}")
                break
    if senseless > _TOLD:
        malformed.append(f"{called}: {senseless:,} lines in all")
    if content and not content.endswith(b"\n"):
        malformed.append(f"{called}: it ends in the middle of a line")
    return tuple(origins), tuple(malformed)


def receipt_lines(receipts: "Iterable[Receipt]") -> bytes:
    """The lines of a file of receipts (CONTRACT §5)."""
    lines = [
        {
            "path": json_path(receipt.path),
            "digest": receipt.checksum.digest,
            "algorithm": receipt.checksum.algorithm,
            "state": receipt.state,
            "at": json_moment(receipt.at),
        }
        for receipt in receipts
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _receipt(line: bytes) -> "Receipt":
    from common.ledger.rows import Receipt

    fields = _fields(line)
    if fields["state"] not in RECEIPT_STATES:
        raise ValueError(f"no state that we know: {fields['state']!r}")
    return Receipt(_path(fields["path"]), _checksum(fields), fields["state"], _time(fields["at"]))


def _origin(name: bytes, line: bytes) -> "Origin":
    from common.ledger.rows import Origin

    fields = _fields(line)
    size = fields["size"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"no size: {size!r}")
    stem = name.removesuffix(b".jsonl")
    return Origin(_path(fields["path"]), size, _checksum(fields), stem, _time(fields["sent"]))


def _fields(line: bytes) -> dict[str, Any]:
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise TypeError("no object")
    return fields


def _checksum(fields: Mapping[str, Any]) -> Checksum:
    algorithm, digest = fields["algorithm"], fields["digest"]
    if algorithm not in _DIGITS:
        raise ValueError(f"no algorithm that we know: {algorithm!r}")
    if not re.fullmatch(f"[0-9a-f]{{{_DIGITS[algorithm]}}}", digest):
        raise ValueError(f"no digest: {digest!r}")
    return Checksum(cast(Algorithm, algorithm), digest)


def _time(value: str) -> int:
    """Milliseconds since the epoch."""
    at = datetime.fromisoformat(value)
    if at.tzinfo is None:
        raise ValueError(f"a time without its zone: {value!r}")
    return round(at.timestamp() * 1000)


def _nonsense(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _path(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and isinstance(value.get("base64"), str):
        return base64.b64decode(value["base64"], validate=True)
    raise TypeError(f"no path: {value!r}")
