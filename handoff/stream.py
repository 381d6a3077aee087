"""Files on their way into the endpoint's staging as one tar archive: read once, and hashed as they are sent.

rsync and scp deal with their other half about every file, and leave the hashing to others. Here the files
follow each other without a pause, and one process there unpacks them (stream.sh).
"""

import os
import stat
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from common.errors import Failure, RemoteError
from common.files import Algorithm, Hashing
from common.process import Chunk
from common.remote import Remote, Said, command_killed, endpoint_failure, program_missing
from common.transport import Consignment, Limits, Progress, Sent, broken_off, incomplete, not_sent
from handoff.script import Answer, Definitions, script

_BLOCK = tarfile.BLOCKSIZE
_PAGE = 4096
_LARGE = 1 << 16
"""From so many bytes on a file's content begins at a page of the archive."""
_ZEROS = memoryview(bytes(1 << 20))
_PIECE = 1 << 18
"""Pieces of fewer bytes are put together: each takes a call of the kernel here, and one of ssh's."""


class Stream:
    """One ssh for the batch, through the worker's kept connection; the endpoint needs GNU tar for it."""

    name = "stream"
    hashes = True

    def __init__(self, remote: Remote, limits: Limits, algorithm: Algorithm) -> None:
        self._remote, self._limits, self._algorithm = remote, limits, algorithm

    def send(
        self,
        root: bytes,
        paths: Sequence[bytes],
        dest: bytes,
        *,
        progress: Progress | None = None,
        meanwhile: Iterator[object] | None = None,
    ) -> Sent:
        batch = Consignment(root, paths)
        if not batch.good:
            return batch.sent()
        staging, name = os.path.split(dest)
        unpacking = script("stream.sh", Definitions(staging=staging, batch=b"./" + name))
        try:
            said = self._remote.try_script(
                unpacking,
                more=lambda: self._paced(_gathered(_archive(batch, self._algorithm))),
                timeout=self._limits.timeout,
                stall_timeout=self._limits.stall_timeout,
                on_progress=progress,
            )
            failure = broken_off(said.done) or said.failure or _failure(said)
        except RemoteError as error:
            return batch.sent(failure=error.failure)
        return batch.sent(said.done, failure=failure)

    def _paced(self, chunks: Iterator[Chunk]) -> Iterable[Chunk]:
        """The same, no faster than the bandwidth."""
        return _slowly(chunks, self._limits.bandwidth) if self._limits.bandwidth else chunks


def _archive(batch: Consignment, algorithm: Algorithm) -> Iterator[Chunk]:
    at = 0
    for path, status in batch.statuses.items():
        header = _header(path, status, at)
        yield header
        yield from _content(batch, path, status.st_size, algorithm)
        padding = _ZEROS[: -status.st_size % _BLOCK]
        yield padding
        at += len(header) + status.st_size + len(padding)
    yield _ZEROS[: 2 * _BLOCK]


def _header(path: bytes, status: os.stat_result, at: int) -> bytes:
    """What stands before a file, `at` this place of the archive: its name, size, permission bits and time.

    tar takes a long name from a header of its own as it is, and the nanoseconds from a header of pax, in
    which a name would have to be UTF-8 (https://www.gnu.org/software/tar/manual, Formats). The content of
    large files begins at a page, since tar would write each of its pieces into two halves of pages.
    """
    file = tarfile.TarInfo(os.fsdecode(b"./" + path))
    file.size, file.mode = status.st_size, stat.S_IMODE(status.st_mode)
    header = file.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape")
    records = _time_record(status.st_mtime_ns)
    room = len(records) + -len(records) % _BLOCK
    gap = -(at + _BLOCK + room + len(header)) % _PAGE
    if gap and status.st_size >= _LARGE:
        comment = room + gap - len(records)
        records += (b"%d comment=" % comment).ljust(comment - 1) + b"\n"
    return _pax_header(len(records)) + records + bytes(-len(records) % _BLOCK) + header


@cache
def _pax_header(size: int) -> bytes:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, size
    return info.tobuf(tarfile.GNU_FORMAT)


def _time_record(nanoseconds: int) -> bytes:
    """A modification time as a record of pax, whose length counts itself."""
    whole, part = divmod(abs(nanoseconds), 10**9)
    rest = b" mtime=%s%d.%09d\n" % (b"-" if nanoseconds < 0 else b"", whole, part)
    return b"%d%s" % (len(rest) + 2, rest)


def _content(batch: Consignment, path: bytes, size: int, algorithm: Algorithm) -> Iterator[Chunk]:
    """What a file holds, exactly as many bytes as have been announced."""
    hashing = Hashing(os.path.join(batch.root, path), algorithm)
    left = size
    try:
        for chunk in hashing:
            yield chunk[:left]
            left = max(0, left - len(chunk))
            if not left:
                break
        batch.checksums[path], _ = hashing.result
    except OSError as error:
        batch.failures[path] = not_sent(hashing.path, error)
    # One that has become shorter, or can't be read on, will not be placed; the next ones will.
    while left:
        yield _ZEROS[:left]
        left = max(0, left - len(_ZEROS))


def _gathered(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The same in fewer pieces."""
    gathered = bytearray()
    for chunk in chunks:
        if len(chunk) < _PIECE:
            gathered += chunk
            chunk = b""
        if gathered and (chunk or len(gathered) >= _PIECE):
            yield memoryview(gathered)
            gathered = bytearray()
        if chunk:
            yield chunk
    yield memoryview(gathered)


def _slowly(chunks: Iterable[Chunk], bandwidth: int) -> Iterator[Chunk]:
    """In pieces for a twentieth of a second, with a pause after each."""
    size = max(1, bandwidth // 20)
    due = time.monotonic()
    for chunk in chunks:
        for at in range(0, len(chunk), size):
            piece = chunk[at : at + size]
            yield piece
            due += len(piece) / bandwidth
            time.sleep(max(0.0, due - time.monotonic()))


def _failure(said: Said) -> Failure | None:
    answer = Answer.read(said.answer)
    if "missing" in answer:
        return program_missing("GNU tar", said.done.last_words)
    if "killed" in answer:
        return command_killed("tar was killed while it unpacked")
    if "damaged" not in answer:
        return None
    of_content = [line for line in said.done.stderr_lines if not _is_of_attributes(line)]
    return endpoint_failure(of_content) or incomplete(of_content or said.done.stderr_lines)


def _is_of_attributes(line: str) -> bool:
    """Whether tar says that a file's time or mode could not be set: some filesystems know none."""
    said = line.rpartition(": Cannot ")[2]
    return said.startswith(("utime: ", "change mode to ", "tar: Exiting with failure status "))
