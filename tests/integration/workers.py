"""Workers for the tests of the pool."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from common.pool import Tell
from common.process import run


@dataclass(frozen=True, slots=True)
class EchoRecipe:
    """Makes workers that do what their task's first word says."""

    trace: str
    """A file to which a worker adds a line when it is opened and when it is closed."""

    @contextmanager
    def open(self, number: int, tell: Tell) -> Iterator["Echo"]:
        self._note(f"opened {number}")
        yield Echo(number, tell)
        self._note(f"closed {number}")

    def _note(self, line: str) -> None:
        with open(self.trace, "a") as file:
            file.write(line + "\n")


class Echo:
    """Answers, raises, dies, tells progress, or runs a program that sleeps."""

    def __init__(self, number: int, tell: Tell) -> None:
        self._number = number
        self._tell = tell

    def work(self, task: str) -> str:
        verb, _, rest = task.partition(" ")
        match verb:
            case "raise":
                raise ValueError(rest)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "tell":
                self._tell("thinking", int(rest))
                time.sleep(0.3)
            case "sleep":
                run(["sleep", rest])
            case "pid":
                return str(os.getpid())
        return f"{self._number}: {task}"
