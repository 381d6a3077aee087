"""The process in which a catalogue lives: it takes orders from its host and answers file by file.

Orders come as pickles and answers go as lines of JSON, on two pipes that only the two processes
have. Each result is written at once: a pipe keeps what a process said before it died, and the host,
not being woken for each of them, reads many at a time.
"""

import json
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import BinaryIO

from common.files import Algorithm, Checksum
from endpoint.catalogues.contract import Catalogue, CatalogueError, Request, Result, Verdict
from endpoint.catalogues.loading import Source, make


class Order(StrEnum):
    """What the host wants: the first word of a message to the process."""

    MAKE = "make"
    """With the source and the configuration of the catalogue."""
    VERSION = "version"
    OPEN = "open"
    INGEST = "ingest"
    """With a list of packed requests."""


class Word(StrEnum):
    """The first word of an answer. One that begins with a number is a result: id, verdict, reason."""

    DONE = "done"
    """The order is carried out; with the version, where that was asked for."""
    ERROR = "error"
    """With a message and a hint: a `CatalogueError`."""
    RAISED = "raised"
    """With an exception's name and text."""
    ODD = "odd"
    """With what the catalogue answered that is no result."""


Packed = tuple[int, bytes, bytes, int, Algorithm, str]
"""A request as it travels: a tuple of plain values is pickled ten times faster than dataclasses are."""

_LONGEST = 2000
"""Characters of a text that a catalogue says."""
_FROM_THE_HOST_ALONE = {Verdict.TIMED_OUT, Verdict.CRASHED, Verdict.NO_ANSWER}
# How the line of a result without a reason goes on after the number.
_PLAIN = {
    verdict: f',"{verdict}",""]\n'.encode("ascii")
    for verdict in Verdict
    if verdict not in _FROM_THE_HOST_ALONE
}


def pack(request: Request) -> Packed:
    """What `unpack` makes a request of."""
    checksum = request.checksum
    return request.id, request.path, request.name, request.size, checksum.algorithm, checksum.digest


def unpack(packed: Packed) -> Request:
    """The request as the catalogue sees it."""
    number, path, name, size, algorithm, digest = packed
    return Request(number, path, name, size, Checksum(algorithm, digest))


def serve() -> None:
    """Be the process: its main function. The arguments are descriptors and the host's process id."""
    orders, answers, output, parent = (int(word) for word in sys.argv[1:5])
    del sys.argv[1:]
    # What is printed here is the catalogue's, and has no place among what the manager writes.
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.set_inheritable(orders, False)
    os.set_inheritable(answers, False)
    if os.getppid() != parent:
        return
    voice = _Voice(answers)
    with open(orders, "rb") as stream, suppress(BrokenPipeError):
        _Service(voice).take(stream)


class _Voice:
    """Says lines to the host."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._process = os.getpid()

    def say(self, *words: object) -> None:
        self.write(json.dumps(words).encode("ascii") + b"\n")

    def write(self, line: bytes) -> None:
        if os.getpid() != self._process:
            # A fork of the catalogue's that came back here instead of ending: the host hears one of them.
            os._exit(0)
        while line:
            line = line[os.write(self._descriptor, line) :]


class _Service:
    """Carries out orders, one after the other, until the host has no more."""

    def __init__(self, voice: _Voice) -> None:
        self._voice = voice
        self._catalogue: Catalogue | None = None
        self._opened = False

    def take(self, stream: BinaryIO) -> None:
        for word, *rest in _orders(stream):
            tasks: Mapping[object, Callable[..., object]] = {
                Order.MAKE: self._make,
                Order.VERSION: self._version,
                Order.OPEN: self._open,
                Order.INGEST: self._ingest,
            }
            self._carry_out(tasks[word], rest)
        if self._catalogue is not None and self._opened:
            self._catalogue.close()

    def _carry_out(self, task: Callable[..., object], words: Sequence[object]) -> None:
        try:
            answer = task(*words)
        except CatalogueError as error:
            # A subclass may have been made without what ours is made with.
            texts = getattr(error, "message", str(error)), getattr(error, "hint", "")
            self._voice.say(Word.ERROR, *(_bounded(text) for text in texts))
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - a catalogue may raise whatever it likes; its host is told
            self._voice.say(Word.RAISED, _bounded(f"{type(error).__name__}: {error}"))
        else:
            self._voice.say(Word.DONE, answer)

    def _make(self, source: Source, config: Mapping[str, object]) -> None:
        self._catalogue = make(source, config)

    def _version(self) -> str:
        assert self._catalogue is not None
        return _bounded(self._catalogue.version())

    def _open(self) -> None:
        assert self._catalogue is not None
        self._catalogue.open()
        self._opened = True

    def _ingest(self, packed: Sequence[Packed]) -> None:
        assert self._catalogue is not None
        for result in self._catalogue.ingest([unpack(one) for one in packed]):
            if isinstance(result, Result) and isinstance(result.id, int):
                self._voice.write(_line(result))
            else:
                self._voice.say(
                    Word.ODD, _bounded(f"{type(result).__name__} instead of a result: {result!r}")
                )


def _orders(stream: BinaryIO) -> Iterator[tuple[object, ...]]:
    with suppress(EOFError):
        while True:
            yield pickle.load(stream)


def _line(result: Result) -> bytes:
    plain = _PLAIN.get(result.verdict) if not result.reason else None
    if plain is not None:
        return b"[%d%b" % (result.id, plain)
    try:
        verdict = Verdict(result.verdict)
    except ValueError:
        reason = f"the catalogue's verdict on it was {_bounded(result.verdict)!r}, which means nothing"
        return _json(result.id, Verdict.FAILED, reason)
    if verdict in _FROM_THE_HOST_ALONE:
        verdict = Verdict.FAILED
    return _json(result.id, verdict, _bounded(result.reason))


def _json(*words: object) -> bytes:
    return json.dumps(words).encode("ascii") + b"\n"


def _bounded(text: object) -> str:
    return str(text)[:_LONGEST]
