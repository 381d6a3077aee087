"""The catalogue's process as its host holds it: orders go in, answers come out, prints are kept apart."""

import json
import logging
import os
import pickle
import selectors
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.errors import ProcessError
from common.process import Background, lines_of
from endpoint.catalogues.service import Word

log = logging.getLogger(__name__)

Answer = list[Any]
"""The words of a line of JSON, at least one; what they are is known by the first."""

_TICK = 0.1
"""Seconds between two looks at whether the process lives; a child of its may hold the pipes open."""
_NAP = 0.0002
"""Seconds that answers may gather: to be woken for each of them would cost more than they do."""
_CHUNK = 1 << 16
_KEPT = 1 << 14
"""Bytes of what it prints that are kept for its last words."""
_PROGRAM = "import sys; sys.path.insert(0, {root!r}); from endpoint.catalogues.service import serve; serve()"


class DiedError(Exception):
    """The process has ended; the text says how, as the end of a sentence that begins with it."""


class StalledError(Exception):
    """Nothing was heard of it for too long."""


class Tenant:
    """A process that has a catalogue, or will have one."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        self._output, output = os.pipe()
        root = str(Path(__file__).parents[2])
        argv = [sys.executable, "-c", _PROGRAM.format(root=root)]
        argv += [str(word) for word in (orders, answers, output, os.getpid())]
        try:
            self._process = Background(
                argv, env=env, pass_fds=(orders, answers, output), death_signal=signal.SIGKILL
            )
        except ProcessError:
            for descriptor in (self._orders, self._answers, self._output):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (orders, answers, output):
                os.close(descriptor)
        self.is_open = self.has_served = False
        self._unsent = memoryview(b"")
        self._heard, self._printed = bytearray(), bytearray()
        self._begun = b""
        self._is_streaming = False
        self._selector = selectors.DefaultSelector()
        for descriptor in (self._answers, self._output, self._orders):
            os.set_blocking(descriptor, False)
        self._selector.register(self._answers, selectors.EVENT_READ, self._listen)
        self._selector.register(self._output, selectors.EVENT_READ, self._overhear)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process is dead."""
        return self._process.poll() is not None

    @property
    def last_words(self) -> str:
        """The last line that it printed, ready to be put behind a sentence; empty if there is none."""
        lines = lines_of(bytes(self._printed))
        return f"; its last words: {lines[-1]}" if lines else ""

    def send(self, order: object) -> None:
        """Give an order. It is on its way when answers are waited for."""
        self._unsent = memoryview(pickle.dumps(order))
        self._is_streaming = False
        # Its last words are about what it is asked to do now.
        self._printed.clear()
        self._selector.register(self._orders, selectors.EVENT_WRITE, self._feed)

    def hear(self, patience: float) -> list[Answer]:
        """The answers that have come in, at least one.

        Raises
        ------
        StalledError
            There was none for so many seconds.
        DiedError
            There will be no more.
        """
        deadline = time.monotonic() + patience
        if self._is_streaming:
            time.sleep(_NAP)
        while True:
            has_ended = self.has_ended
            left = 0.0 if has_ended else deadline - time.monotonic()
            self._exchange(max(0.0, min(left, _TICK)))
            if answers := self._answered():
                self._is_streaming = True
                return answers
            if has_ended:
                raise DiedError(_ending(self._process.poll() or 0))
            if left <= 0:
                raise StalledError

    def close(self, patience: float) -> None:
        """Give no more orders, wait so many seconds for the end, then end it."""
        deadline = time.monotonic() + patience
        self._forget(self._orders)
        os.close(self._orders)
        self._orders = -1
        while not self.has_ended and (left := deadline - time.monotonic()) > 0:
            self._exchange(min(left, _TICK))
        self.kill()

    def kill(self) -> None:
        """End it at once, with all that it started."""
        self._process.kill(wholly=True)
        self._exchange(0.0)
        self._selector.close()
        for descriptor in (self._orders, self._answers, self._output):
            if descriptor >= 0:
                os.close(descriptor)

    def _exchange(self, seconds: float) -> None:
        if self._answers not in self._selector.get_map():
            # It is about to end; nothing else is worth waking up for.
            self._process.wait(seconds)
            seconds = 0.0
        for key, _ in self._selector.select(seconds):
            key.data()

    def _listen(self) -> None:
        self._heard += self._read(self._answers)

    def _overhear(self) -> None:
        printed = self._read(self._output)
        self._printed += printed
        del self._printed[:-_KEPT]
        if log.isEnabledFor(logging.DEBUG):
            whole, _, self._begun = (self._begun + printed).rpartition(b"\n")
            for line in lines_of(whole):
                log.debug("catalogue: %s", line)

    def _read(self, descriptor: int) -> bytes:
        content = os.read(descriptor, _CHUNK)
        if not content:
            self._forget(descriptor)
        return content

    def _feed(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._orders, self._unsent) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            # That it is dead shows as soon as its answers are wanted.
            self._unsent = memoryview(b"")
        self._forget(self._orders)

    def _forget(self, descriptor: int) -> None:
        with suppress(KeyError):
            self._selector.unregister(descriptor)

    def _answered(self) -> list[Answer]:
        """The whole lines of what has been heard."""
        end = self._heard.rfind(b"\n") + 1
        lines, self._heard = bytes(self._heard[:end]), self._heard[end:]
        if not lines:
            return []
        try:
            answers = json.loads(b"[" + lines[:-1].replace(b"\n", b",") + b"]")
        except ValueError:
            # Nobody but our own code writes there, unless the catalogue writes to descriptors at random.
            answers = [answer for line in lines.splitlines() for answer in _answer(line)]
        return [answer for answer in answers if answer and isinstance(answer, list)]


def _answer(line: bytes) -> list[object]:
    try:
        return [json.loads(line)]
    except ValueError:
        return [[Word.ODD, f"garbage: {line[:80]!r}"]]


def _ending(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
