"""Running programs: the only module that starts any.

Every program leads a process group of its own, which is ended as a whole, and is told by the kernel
when its parent has died, so that nothing outlives a manager that was killed.
"""

import ctypes
import fcntl
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from common.errors import ProcessError

_PR_SET_PDEATHSIG = 1
# Bound here, because a child between fork and exec should do as little as it can.
_PRCTL = ctypes.CDLL(None).prctl

_GRACE = 1.0
"""Seconds that a process group has between SIGTERM and SIGKILL."""
_DONE = object()
_TICK = 0.25
"""Seconds between two looks at a running program's progress."""
_CHUNK = 1 << 20
"""More than a pipe holds, so that one read empties it."""

Argv = Sequence[str | bytes]
Chunk = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended."""

    argv: tuple[bytes, ...]
    exit_code: int
    """Negative: the number of the signal that ended it."""
    stdout: bytes
    stderr: bytes
    seconds: float
    ended: Literal["exited", "timeout", "stalled"] = "exited"
    """Whether it ended by itself or was killed, and why."""

    @property
    def stderr_lines(self) -> list[str]:
        """The lines of its standard error that say something."""
        return lines_of(self.stderr)

    @property
    def last_words(self) -> str:
        """The last of them."""
        return next(reversed(self.stderr_lines), "")


def lines_of(output: bytes) -> list[str]:
    """The lines that say something, of a program's output."""
    lines = (line.decode(errors="backslashreplace").strip() for line in output.splitlines())
    return [line for line in lines if line]


def run(
    argv: Argv,
    *,
    stdin: bytes = b"",
    more: Iterable[Chunk] = (),
    timeout: float | None = None,
    stall_timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | bytes | None = None,
    on_progress: Callable[[int], None] | None = None,
    meanwhile: Iterator[object] | None = None,
    stdout_limit: int = 1 << 25,
    stderr_limit: int = 1 << 16,
) -> Completed:
    """Run a program to its end, feed it, and collect what it writes.

    However the call ends, by an exception too, nothing of the program's process group is left. (A
    descendant that has left the group with ``setsid`` can't be helped from here.)

    Parameters
    ----------
    more
        What follows `stdin`, made piece by piece as the program takes it. A piece may be overwritten
        once the next one is asked for.
    timeout
        Seconds of wall-clock time after which the group is killed.
    stall_timeout
        Seconds without a sign of life after which the group is killed. Signs of life are output, input
        that is taken, and any read or write that ``/proc/<pid>/io`` counts for the program or a
        descendant, where the kernel shows that.
    env
        Set on top of this process's own environment.
    on_progress
        Called at most four times a second with the number of bytes that have gone through the
        program, as well as that can be known: the most that one of its processes has written, or
        that it has taken from us.
    meanwhile
        Work of our own, taken a step further whenever the program wants nothing of us. It may be
        left unfinished; a step takes milliseconds.
    stdout_limit, stderr_limit
        So many bytes are kept at least, from the end.

    Raises
    ------
    ProcessError
        The program is not there or can't be started.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        child = _start(argv, env=env, cwd=cwd, pipes=True)
        group = _Group(child)
        stack.callback(group.end)
        talk = stack.enter_context(_Talk(child, stdin, more, stdout_limit, stderr_limit))
        watch = _Watch(group, began, timeout, stall_timeout, on_progress)
        while group.poll() is None and watch.ended == "exited":
            if meanwhile is not None:
                watch.look(heard=talk.exchange(0), taken=talk.taken)
                meanwhile = meanwhile if next(meanwhile, _DONE) is not _DONE else None
            elif talk.is_open:
                watch.look(heard=talk.exchange(_TICK), taken=talk.taken)
            else:
                group.wait(_TICK)
                watch.look(heard=False, taken=talk.taken)
        exit_code = group.end(grace=_GRACE)
        # What its pipes still hold is all there is; a descendant that got away may hold them open.
        talk.exchange(0)
    return Completed(
        tuple(os.fsencode(word) for word in argv),
        exit_code,
        talk.stdout.bytes,
        talk.stderr.bytes,
        time.monotonic() - began,
        watch.ended,
    )


class Background:
    """A program that runs beside us until it is ended; a context manager.

    Parameters
    ----------
    death_signal
        What the kernel sends it when this process dies.
    env
        Set on top of this process's own environment.
    output
        A file that gets its standard output and error; None: they go where ours go.
    """

    def __init__(
        self,
        argv: Argv,
        *,
        death_signal: signal.Signals = signal.SIGTERM,
        env: Mapping[str, str] | None = None,
        cwd: Path | bytes | None = None,
        pass_fds: Sequence[int] = (),
        output: Path | None = None,
    ) -> None:
        with ExitStack() as stack:
            file = stack.enter_context(output.open("ab")) if output else None
            child = _start(argv, env=env, cwd=cwd, death_signal=death_signal, pass_fds=pass_fds, output=file)
        self.pid = child.pid
        self._group = _Group(child)

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._group.poll()

    def wait(self, seconds: float) -> int | None:
        """Wait so long at most for its end; its exit code, or None if it still runs."""
        return self._group.wait(seconds)

    def kill(self, *, wholly: bool = False) -> int:
        """End the whole group at once; with `wholly` all descendants as well.

        The kernel tells its children that it has died, but not theirs, which may hang on a dead network.
        """
        if wholly and self.poll() is None:
            # It must start nothing more meanwhile.
            os.kill(self.pid, signal.SIGSTOP)
            for pid in self._group.descendants()[1:]:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        return self._group.end()

    def close(self, grace: float = _GRACE) -> int:
        """End the whole group, with so many seconds between asking and killing."""
        return self._group.end(grace=grace)


class _Group:
    """A child and the process group that it leads.

    The child is not reaped before its group has been signalled: until then its number, alive or
    not, can't be anybody else's.
    """

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self._child = child

    def poll(self) -> int | None:
        if self._child.returncode is not None:
            return self._child.returncode
        result = os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def wait(self, seconds: float) -> int | None:
        deadline = time.monotonic() + seconds
        pause = 0.0002
        while (exit_code := self.poll()) is None and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            pause = min(pause * 2, 0.02)
        return exit_code

    def end(self, grace: float = 0.0) -> int:
        if self._child.returncode is None:
            try:
                if grace and self.poll() is None:
                    self._signal(signal.SIGTERM)
                    self.wait(grace)
            finally:
                self._signal(signal.SIGKILL)
                self._child.wait()
        return self._child.returncode

    def descendants(self) -> list[int]:
        """The child and what it started, as far as the kernel tells; cheaper than a walk of /proc."""
        found = [self._child.pid]
        for pid in found:
            for thread in _threads(pid):
                # Each thread has the children that it started.
                with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    found += [int(word) for word in file.read().split()]
        return found

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)


class _Tail:
    """The last bytes of a stream, so many at least."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()

    def add(self, chunk: bytes) -> None:
        self._kept += chunk
        if len(self._kept) > 2 * self._limit:
            del self._kept[: -self._limit]

    @property
    def bytes(self) -> bytes:
        return bytes(self._kept)


class _Talk:
    """A program's three pipes, served together, so that neither side waits for the other."""

    def __init__(
        self,
        child: "subprocess.Popen[bytes]",
        stdin: bytes,
        more: Iterable[Chunk],
        stdout_limit: int,
        stderr_limit: int,
    ) -> None:
        self.stdout, self.stderr = _Tail(stdout_limit), _Tail(stderr_limit)
        self.taken = 0
        """Bytes that the program, or the pipe to it, has taken."""
        self._unsent = memoryview(stdin)
        self._more = iter(more)
        self._selector = selectors.DefaultSelector()
        self._child = child
        for pipe, events, tail in (
            (_pipe(child.stdout), selectors.EVENT_READ, self.stdout),
            (_pipe(child.stderr), selectors.EVENT_READ, self.stderr),
            (_pipe(child.stdin), selectors.EVENT_WRITE, None),
        ):
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, events, (pipe, tail))
        if more:
            # With the 64 kB that a pipe holds, both sides wait for each other (a fifth of the speed).
            with suppress(OSError):
                fcntl.fcntl(_pipe(child.stdin), fcntl.F_SETPIPE_SZ, _CHUNK)
        self._feed(_pipe(child.stdin))

    def __enter__(self) -> "_Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            with suppress(BrokenPipeError):
                _pipe(pipe).close()

    @property
    def is_open(self) -> bool:
        """Whether the program may still say something."""
        return not (_pipe(self._child.stdout).closed and _pipe(self._child.stderr).closed)

    def exchange(self, seconds: float) -> bool:
        """Wait so long at most, read and write what can be; tells whether anything was read."""
        heard = False
        for key, _ in self._selector.select(seconds):
            pipe, tail = key.data
            if tail is None:
                self._feed(pipe)
            else:
                heard |= self._listen(pipe, tail)
        return heard

    def _listen(self, pipe: IO[bytes], tail: _Tail) -> bool:
        chunk = os.read(pipe.fileno(), _CHUNK)
        if chunk:
            tail.add(chunk)
        else:
            self._close(pipe)
        return bool(chunk)

    def _feed(self, pipe: IO[bytes]) -> None:
        try:
            while self._unsent:
                count = os.write(pipe.fileno(), self._unsent[:_CHUNK])
                self._unsent = self._unsent[count:]
                self.taken += count
            # One piece at a time: what the program says, and its time limit, are looked at in between.
            self._unsent = memoryview(next(self._more))
        except BlockingIOError:
            pass
        except (BrokenPipeError, StopIteration):
            # It may not want to read all of it; its exit code will tell whether that matters.
            self._close(pipe)

    def _close(self, pipe: IO[bytes]) -> None:
        self._selector.unregister(pipe)
        pipe.close()


class _Watch:
    """Whether a program still gets on, and whether its time is up."""

    def __init__(
        self,
        group: _Group,
        began: float,
        timeout: float | None,
        stall_timeout: float | None,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self.ended: Literal["exited", "timeout", "stalled"] = "exited"
        self._group = group
        self._began = self._looked = self._alive = began
        self._timeout, self._stall_timeout = timeout, stall_timeout
        self._on_progress = on_progress
        self._counters: dict[int, int] = {}
        self._written = 0

    def look(self, *, heard: bool, taken: int) -> None:
        """To be called whenever something was heard or `taken` from us, and every tick."""
        now = time.monotonic()
        if heard:
            self._alive = now
        if self._timeout is not None and now - self._began > self._timeout:
            self.ended = "timeout"
        elif now - self._looked >= _TICK and (self._on_progress or self._stall_timeout):
            self._looked = now
            self._read_counters(now, taken)
            if self._stall_timeout and now - self._alive > self._stall_timeout:
                self.ended = "stalled"

    def _read_counters(self, now: float, taken: int) -> None:
        # A program that has handed its pipes on, as ssh does to a kept connection, counts nothing itself.
        counters = {0: taken}
        self._written = max(self._written, taken)
        for pid in self._group.descendants():
            # Unreadable where the program runs as somebody else; gone when it has just ended.
            with suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{pid}/io", "rb") as file:
                    fields = file.read(64).split()
                counters[pid] = int(fields[1]) + int(fields[3])
                self._written = max(self._written, int(fields[3]))
        if counters != self._counters:
            self._counters, self._alive = counters, now
            if self._on_progress:
                self._on_progress(self._written)


def _threads(pid: int) -> list[str]:
    """The numbers of a process's threads; none once it is gone."""
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _start(
    argv: Argv,
    *,
    env: Mapping[str, str] | None,
    cwd: Path | bytes | None,
    death_signal: signal.Signals = signal.SIGKILL,
    pass_fds: Sequence[int] = (),
    pipes: bool = False,
    output: IO[bytes] | None = None,
) -> "subprocess.Popen[bytes]":
    parent = os.getpid()

    def follow_parent() -> None:
        # Python code between fork and exec is safe here: our processes have one thread, so no lock
        # can be held by another. The parent may have died before the kernel was asked to watch it.
        _PRCTL(_PR_SET_PDEATHSIG, death_signal.value)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else output,
            stderr=subprocess.PIPE if pipes else output,
            bufsize=0,
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            pass_fds=pass_fds,
            preexec_fn=follow_parent,
            # A group of its own, and no terminal: an ssh that has a question fails instead of waiting.
            start_new_session=True,
        )
    except OSError as error:
        raise _not_started(os.fsdecode(argv[0]), cwd, error) from error


def _not_started(name: str, cwd: Path | bytes | None, error: OSError) -> ProcessError:
    if not isinstance(error, FileNotFoundError):
        return ProcessError(f"{name}: can't be started: {error.strerror}", "try it by hand, as this user")
    if cwd is not None and not os.path.isdir(cwd):
        return ProcessError(
            f"{name}: its working directory is not there: {os.fsdecode(cwd)}", "mount it, or make it"
        )
    return ProcessError(f"{name}: not found", f"install {name}, or add its directory to PATH")
