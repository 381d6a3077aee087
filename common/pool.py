"""Worker processes: each is given one task at a time, and answers; one that dies costs its task alone.

`concurrent.futures.ProcessPoolExecutor` was considered: when one of its workers is killed it breaks
as a whole, and it runs threads in the parent. Here each worker has a socket of its own, on which
tasks go out and progress and answers come back, and the parent stays single-threaded.
"""

import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from common.errors import DbbError
from common.process import Background
from common.runtime import MARK

Task = TypeVar("Task")
Result = TypeVar("Result")
TaskIn = TypeVar("TaskIn", contravariant=True)
ResultOut = TypeVar("ResultOut", covariant=True)

_PROMPT = 2
"""So many workers are started without waiting."""
_GO = None
"""In place of a recipe or a task: there will be no more."""

Tell = Callable[[str, int], None]
"""How a worker tells what it is at: the phase, and the bytes that have gone through it."""


class Worker(Protocol[TaskIn, ResultOut]):
    """What runs in the process. It raises nothing that it can answer with instead."""

    def work(self, task: TaskIn) -> ResultOut: ...


class Recipe(Protocol[TaskIn, ResultOut]):
    """How a worker is made, in its own process. It is pickled, so it is light and complete."""

    def open(self, number: int, tell: Tell) -> AbstractContextManager[Worker[TaskIn, ResultOut]]: ...


@dataclass(frozen=True, slots=True)
class Crash:
    """A worker died over its task, or raised what nobody had foreseen."""

    reason: str
    detail: str = ""
    """The traceback, when there is one."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a worker is at."""

    phase: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Answer(Generic[Task, Result]):
    """What became of a task."""

    number: int
    """Of the worker."""
    task: Task
    result: Result | Crash


@dataclass(slots=True)
class _Hand(Generic[Task]):
    """One worker process as its parent holds it."""

    process: Background
    connection: Connection
    task: Task | None = None
    progress: Progress | None = None

    def send(self, message: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)

    def see_off(self, deadline: float) -> None:
        """Wait until a worker that was told to go has closed all that it had opened."""
        with suppress(EOFError, OSError, pickle.UnpicklingError):
            while self.connection.poll(max(0.0, deadline - time.monotonic())):
                self.connection.recv()

    def end(self) -> int:
        """End the process with all that it started; gives its exit code."""
        self.connection.close()
        return self.process.kill(wholly=True)


class Reserve:
    """Where the workers of pools come from; some may start before it is known what they are to be.

    A context manager, at whose end those go that no pool has taken.

    Parameters
    ----------
    prepare
        A module that every worker imports as it starts, rather than with its recipe.
    """

    def __init__(self, prepare: str = "common.pool") -> None:
        self._prepare = prepare
        self.mark = os.urandom(8).hex()
        """What all of them carry in `MARK`, and whatever they start."""
        self._early: dict[int, _Hand[Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dismiss()

    def call_up(self) -> None:
        """Start one more, which gets ready on another processor; why it can't shows when it is taken."""
        number = len(self._early)
        with suppress(DbbError, OSError):
            self._early[number] = self._start(number)

    def take(self, number: int) -> _Hand[Any]:
        """The worker of that number."""
        return self._early.pop(number, None) or self._start(number)

    def dismiss(self) -> None:
        """End those that nobody has taken."""
        while self._early:
            self._early.popitem()[1].end()

    def _start(self, number: int) -> _Hand[Any]:
        ours, theirs = socket.socketpair()
        with theirs:
            root = str(Path(__file__).parent.parent)
            program = (
                f"import gc, sys; gc.set_threshold(50_000); sys.path.insert(0, {root!r}); "
                f"import {self._prepare}; from common.pool import serve; serve()"
            )
            argv = [sys.executable, "-c", program, str(theirs.fileno()), str(os.getpid()), str(number)]
            fds, env = (theirs.fileno(),), {MARK: self.mark}
            process = Background(argv, pass_fds=fds, env=env, death_signal=signal.SIGKILL)
        return _Hand(process, Connection(ours.detach()))


class Pool(Generic[Task, Result]):
    """A number of workers, each started when there is work for it and again after it has died.

    Parameters
    ----------
    size
        Workers at most.
    reserve
        Where they come from.
    ramp
        Seconds between the starts of two of them beyond the first two: a worker costs a fifth of a
        second of a processor to start and connect, which a short rush of work does not earn.
    """

    def __init__(self, size: int, reserve: Reserve, *, ramp: float = 0.5) -> None:
        self.size = size
        self._reserve = reserve
        self._recipe: Recipe[Task, Result] | None = None
        self._ramp = ramp
        self._last_start = 0.0
        self._started = 0
        """So many of the numbers have been started at least once."""
        self._hands: dict[int, _Hand[Task]] = {}

    def start(self) -> None:
        """Have the first two now, rather than with the first tasks."""
        for number in range(min(_PROMPT, self.size)):
            self._hand(number)
        self._reserve.dismiss()

    def brief(self, recipe: Recipe[Task, Result]) -> None:
        """Tell the workers, those that run and those to come, what they are; before the first task."""
        self._recipe = recipe
        for hand in self._hands.values():
            hand.send(recipe)

    def idle(self) -> list[int]:
        """The numbers of the workers with nothing to do, and of one that died; else of one more to start."""
        idle = [number for number, hand in sorted(self._hands.items()) if hand.task is None]
        absent = next((number for number in range(self.size) if number not in self._hands), None)
        if absent is None or (absent >= self._started and (idle or self._is_ramping())):
            return idle
        return [*idle, absent]

    def _is_ramping(self) -> bool:
        return len(self._hands) >= _PROMPT and time.monotonic() < self._last_start + self._ramp

    def busy(self) -> dict[int, Task]:
        """The tasks in flight, by the number of the worker."""
        return {n: hand.task for n, hand in self._hands.items() if hand.task is not None}

    def progress(self, number: int) -> Progress | None:
        """What a worker last told of the task that it is at."""
        hand = self._hands.get(number)
        return hand.progress if hand else None

    def submit(self, number: int, task: Task) -> None:
        """Give a task to an idle worker. That it died meanwhile shows when answers are collected."""
        hand = self._hand(number)
        hand.task, hand.progress = task, None
        hand.send(task)

    def waitables(self) -> list[Connection]:
        """What becomes readable when there is something to collect."""
        return [hand.connection for hand in self._hands.values()]

    def collect(self) -> Iterator[Answer[Task, Result]]:
        """Everything that has come in, without waiting."""
        for number, hand in list(self._hands.items()):
            try:
                while hand.connection.poll():
                    message = hand.connection.recv()
                    if isinstance(message, Progress):
                        hand.progress = message
                    elif hand.task is not None:
                        task, hand.task = hand.task, None
                        yield Answer(number, task, message)
            except (EOFError, OSError, pickle.UnpicklingError):
                yield from self._bury(number)

    def close(self, patience: float = 2.0) -> None:
        """Let idle workers go in peace, and end what has not gone after so many seconds."""
        idle = [hand for hand in self._hands.values() if hand.task is None]
        for hand in idle:
            hand.send(_GO)
        for hand in self._hands.values():
            if hand.task is not None:
                hand.end()
        deadline = time.monotonic() + patience
        for hand in idle:
            hand.see_off(deadline)
            # Where all is closed, only the end of an interpreter is left, which takes long.
            hand.end()
        self._hands.clear()

    def _hand(self, number: int) -> _Hand[Task]:
        if number not in self._hands:
            self._hands[number] = self._start(number)
        return self._hands[number]

    def _start(self, number: int) -> _Hand[Task]:
        self._last_start = time.monotonic()
        self._started = max(self._started, number + 1)
        hand: _Hand[Task] = self._reserve.take(number)
        if self._recipe is not None:
            hand.send(self._recipe)
        return hand

    def _bury(self, number: int) -> Iterator[Answer[Task, Result]]:
        hand = self._hands.pop(number)
        status = hand.end()
        if hand.task is not None:
            yield Answer(number, hand.task, Crash(f"the worker process died ({status})"))


def serve() -> None:
    """Be a worker: the main function of its process."""
    descriptor, parent, number = (int(word) for word in sys.argv[1:4])
    os.set_inheritable(descriptor, False)
    # Ctrl-C in a terminal goes to the whole foreground group; the parent decides what ends. A handler
    # and not SIG_IGN: what is ignored stays so across exec, and ssh must hear its SIGTERM.
    signal.signal(signal.SIGINT, _leave_it_to_the_parent)
    signal.signal(signal.SIGTERM, _leave_it_to_the_parent)
    signal.signal(signal.SIGHUP, _leave_it_to_the_parent)
    signal.signal(signal.SIGIO, _leave_it_to_the_parent)
    if os.getppid() != parent:
        return
    with Connection(descriptor) as connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        recipe = connection.recv()
        if recipe is _GO:
            return
        with recipe.open(number, _Teller(connection).tell) as worker:
            for task in _tasks(connection):
                connection.send(_answer(worker, task))


class _Teller:
    """Sends progress, four times a second at most."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._phase = ""
        self._next = 0.0

    def tell(self, phase: str, count: int) -> None:
        now = time.monotonic()
        if phase != self._phase or now >= self._next:
            self._phase, self._next = phase, now + 0.25
            self._connection.send(Progress(phase, count))


def _tasks(connection: Connection) -> Iterator[object]:
    """The tasks, until the parent says that there are no more, or dies."""
    with suppress(EOFError, ConnectionResetError):
        while (task := connection.recv()) is not _GO:
            yield task


def _leave_it_to_the_parent(_number: int, _frame: object) -> None:
    """Do nothing with a signal that is meant for the parent."""


def _answer(worker: Worker[Task, Result], task: Task) -> Result | Crash:
    try:
        return worker.work(task)
    except Exception as error:  # noqa: BLE001 - the pool's edge: whatever it was, it is told and the worker lives on
        return Crash(f"{type(error).__name__}: {error}", traceback.format_exc())
