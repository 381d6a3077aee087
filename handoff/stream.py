"""Large files on their way into the endpoint's staging: read once, and sent through ssh as they are.

For them rsync and scp are mostly busy with themselves. Here a file is hashed and sent by the same pass, and
a script there gives each file so many bytes of what comes (stream.sh).
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from common.errors import Failure, RemoteError
from common.files import Algorithm, Hashing
from common.process import Chunk
from common.remote import Remote, Said, endpoint_failure
from common.transport import Consignment, Limits, Progress, Sent, broken_off, incomplete, not_sent
from handoff.script import Answer, Definitions, ancestors, script, whole_failure

_NOTHING = memoryview(bytes(1 << 20))


class Stream:
    """One ssh for the batch, through the worker's kept connection; it hashes what it sends.

    The endpoint needs no more for it than for a visit.
    """

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
        text, data = script("stream.sh", _definitions(batch.statuses, dest))
        try:
            said = self._remote.try_script(
                text,
                data,
                lambda: self._paced(_content(batch, self._algorithm)),
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


def _definitions(statuses: Mapping[bytes, os.stat_result], dest: bytes) -> Definitions:
    staging, name = os.path.split(dest)
    modes: dict[str, list[bytes]] = {}
    words = []
    for path, status in statuses.items():
        words += [b"%d" % status.st_size, _seconds(status.st_mtime_ns), b"./" + path]
        modes.setdefault(f"{status.st_mode & 0o777:03o}", []).append(b"./" + path)
    definitions = Definitions(staging=staging, batch=b"./" + name, modes=" ".join(modes))
    definitions.add_list("directories", [b"./" + directory for directory in ancestors(statuses)])
    definitions.add_list("files", words, each=3)
    for mode, paths in modes.items():
        definitions.add_list(f"mode_{mode}", paths)
    return definitions


def _seconds(nanoseconds: int) -> bytes:
    """A time as touch reads it after an @."""
    whole, part = divmod(abs(nanoseconds), 10**9)
    return b"%s%d.%09d" % (b"-" if nanoseconds < 0 else b"", whole, part)


def _content(batch: Consignment, algorithm: Algorithm) -> Iterator[Chunk]:
    """What the files hold, one after the other, exactly as many bytes of each as have been announced."""
    for path, status in batch.statuses.items():
        left = status.st_size
        hashing = Hashing(os.path.join(batch.root, path), algorithm)
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
            yield _NOTHING[:left]
            left = max(0, left - len(_NOTHING))
    yield b"end\n"


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
    if "broken" in answer:
        return whole_failure(os.fsencode(said.done.last_words), "what was sent could not be written")
    if "damaged" not in answer:
        return None
    # A filesystem that knows no modes or times takes what the files hold all the same.
    of_content = [line for line in said.done.stderr_lines if not line.startswith(("touch: ", "chmod: "))]
    return endpoint_failure(of_content) or incomplete(of_content or said.done.stderr_lines)
