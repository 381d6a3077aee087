"""What the two managers leave for each other in the endpoint's staging: delivery notes and receipts."""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, cast

from common.files import Algorithm, Checksum
from common.ledger.rows import Receipt
from common.wording import json_path

_DIGITS = {"sha256": 64, "blake2b": 128}
_STATES = ("stored", "ingested")
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

    files: Mapping[bytes, tuple[Receipt | None, ...]] = field(default_factory=dict)
    """The lines of each file that they came in; None for one that makes no sense."""
    malformed: tuple[str, ...] = ()
    """What is wrong with those, each told with its file."""

    @property
    def records(self) -> tuple[Receipt, ...]:
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


def is_receipt_name(name: bytes) -> bool:
    """Whether a name is a plain one, as receipts have: nothing else is read or removed."""
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
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                lines.append(None)
                what = f"no {error}" if isinstance(error, KeyError) else str(error)
                malformed.append(f"{name.decode()}:{number}: {what}")
        files[name] = tuple(lines)
    return Receipts(files, tuple(malformed))


def _receipt(line: bytes) -> Receipt:
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise TypeError("no object")
    algorithm, digest, state = fields["algorithm"], fields["digest"], fields["state"]
    if state not in _STATES:
        raise ValueError(f"no state that we know: {state!r}")
    if algorithm not in _DIGITS:
        raise ValueError(f"no algorithm that we know: {algorithm!r}")
    if not re.fullmatch(f"[0-9a-f]{{{_DIGITS[algorithm]}}}", digest):
        raise ValueError(f"no digest: {digest!r}")
    at = datetime.fromisoformat(fields["at"])
    if at.tzinfo is None:
        raise ValueError(f"a time without its zone: {fields['at']!r}")
    checksum = Checksum(cast(Algorithm, algorithm), digest)
    return Receipt(_path(fields["path"]), checksum, state, round(at.timestamp() * 1000))


def _path(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and isinstance(value.get("base64"), str):
        return base64.b64decode(value["base64"], validate=True)
    raise TypeError(f"no path: {value!r}")
