"""Carrying a batch of files into the endpoint's staging: rsync, scp, or a command of one's own."""

import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from common.errors import Failure, ProcessError, RemoteError, Scope, unreadable
from common.files import Checksum
from common.process import Completed, run
from common.remote import (
    ENVIRONMENT,
    Remote,
    Symptom,
    command_failed,
    connection_failure,
    endpoint_failure,
    fill,
    not_there,
    quote,
    recognise,
    runtime_failure,
    split_template,
    stalled,
)
from common.wording import path as shown

Progress = Callable[[int], None]
"""Is told the bytes that have gone out so far, as well as that can be known."""

KILLED = "transfer was killed"
"""The cause of failures of a transfer that somebody has killed, which says nothing of its files."""

_ARGUMENT_BYTES = 100_000
"""Of file names in one command: Linux takes 128 KiB in one argument and 2 MiB in all (execve(2))."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker's transfers may take."""

    bandwidth: int | None = None
    """Bytes a second."""
    timeout: float | None = None
    """Seconds of wall-clock time for one command."""
    stall_timeout: float | None = None
    """Seconds without a byte moved."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a transfer, as far as this side can know; the endpoint has the last word."""

    layout: Literal["tree", "numbered"] = "tree"
    """``tree``: file ``a/b`` is at ``<dest>/a/b``. ``numbered``: at ``<dest>/<k>/b``, where
    ``directories[k]`` is ``a``."""
    directories: tuple[bytes, ...] = ()
    failures: Mapping[bytes, Failure] = field(default_factory=dict)
    """Of single files, all of scope ``FILE``: they were not sent."""
    failure: Failure | None = None
    """Of the transfer. Scope ``FILE``: it is the reason for those that have not arrived, but others
    may have. Any other scope: something else than the files has to change first."""
    exit_code: int | None = None
    checksums: Mapping[bytes, Checksum] = field(default_factory=dict)
    """Of files that were hashed as they were sent."""
    bytes: int = 0
    """That went out, as well as that can be known."""

    @property
    def error(self) -> str:
        """The failure of the transfer in words, or nothing."""
        return self.failure.reason if self.failure else ""


class Transport(Protocol):
    """Carries files. It answers with failures and raises nothing that it can foresee."""

    @property
    def name(self) -> str: ...

    @property
    def hashes(self) -> bool:
        """Whether it hashes what it sends, so that nobody else need read it."""
        ...

    def send(
        self,
        root: bytes,
        paths: Sequence[bytes],
        dest: bytes,
        *,
        progress: Progress | None = None,
        meanwhile: Iterator[object] | None = None,
    ) -> Sent:
        """Bring files below ``root`` into ``dest`` at the endpoint.

        Parameters
        ----------
        root
            An absolute path.
        paths
            Relative to ``root``, of any bytes. A symbolic link is neither sent nor followed.
        dest
            An absolute path whose last part is a plain name of ours, in a directory that is there.
            It is made if need be; what an earlier, broken attempt left in it does no harm.
        meanwhile
            Work that may go on beside the command, step by step, and may be left unfinished; there is
            none for a transport that hashes.

        Returns
        -------
        Sent
            With content, permission bits and modification times kept, as far as the command can.
            That a file is not in ``failures`` does not mean that it has arrived.
        """
        ...


class Rsync:
    """One rsync for the batch, through the worker's kept connection.

    Parameters
    ----------
    unchecked
        Leave out rsync's own checksum of what it sends, which costs a twentieth of the time and
        proves less than the digest of the copy at rest. Both ends must be of version 3.2 or later.
    """

    name = "rsync"
    hashes = False

    def __init__(self, remote: Remote, limits: Limits, *, unchecked: bool = False) -> None:
        self._remote, self._limits, self._unchecked = remote, limits, unchecked

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
        # Without "./" rsync takes "#name" and ";name" for comments.
        names = b"".join(b"./" + path + b"\0" for path in batch.good)
        try:
            done = self._remote.run(
                self._argv(root, dest),
                stdin=names,
                timeout=self._limits.timeout,
                stall_timeout=self._limits.stall_timeout,
                on_progress=progress,
                meanwhile=meanwhile,
            )
        except RemoteError as error:
            return batch.sent(failure=error.failure)
        return batch.sent(done, failure=self._failure(done))

    def _argv(self, root: bytes, dest: bytes) -> list[str | bytes]:
        target = os.fsencode(self._remote.site.target)
        argv: list[str | bytes] = [
            "rsync",
            "--files-from=-",
            "--from0",
            # Directories are made as they are needed, with rights of their own.
            "--no-implied-dirs",
            "--perms",
            "--times",
            "--whole-file",
            # No name but the file's own ever appears; what is cut off is written again.
            "--inplace",
            # The endpoint's path goes through the protocol, past any shell, with every rsync since 3.0.
            "--protect-args",
            "--rsh=" + " ".join(_rsh_word(word) for word in self._remote.ssh_argv),
        ]
        if self._unchecked:
            argv.append("--checksum-choice=none")
        if self._limits.bandwidth:
            argv.append(f"--bwlimit={max(1, self._limits.bandwidth // 1024)}")
        if self._limits.stall_timeout:
            # For the rsync at the endpoint, which nobody ends when the network has gone silent.
            argv.append(f"--timeout={2 * math.ceil(self._limits.stall_timeout)}")
        # The slash: rsync would give the name of the directory to a file that comes alone.
        return [*argv, "--", root.rstrip(b"/") + b"/", target + b":" + dest + b"/"]

    def _failure(self, done: Completed) -> Failure | None:
        if done.exit_code == 0:
            return None
        lines = done.stderr_lines
        return (
            broken_off(done)
            or self._remote.failure(done)
            or recognise(_RSYNC_SYMPTOMS, Scope.ENDPOINT, lines)
            or endpoint_failure(line for line in lines if _RSYNC_FAR.search(line))
            or _rsync_failure(done.exit_code, lines, connected=self._remote.connected)
        )


class Scp:
    """One scp for the batch: of a tree of symbolic links to its files, which scp follows."""

    name = "scp"
    hashes = False

    def __init__(self, remote: Remote, limits: Limits) -> None:
        self._remote, self._limits = remote, limits

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
        parent, name = os.path.split(dest)
        try:
            # It makes the runtime directory.
            self._remote.connect()
            with _tree_of_links(os.fsencode(self._remote.runtime), name, batch) as tree:
                done = self._remote.run(
                    self._argv(tree, parent),
                    timeout=self._limits.timeout,
                    stall_timeout=self._limits.stall_timeout,
                    on_progress=progress,
                    meanwhile=meanwhile,
                )
        except RemoteError as error:
            return batch.sent(failure=error.failure)
        except OSError as error:
            return batch.sent(failure=runtime_failure(error))
        return batch.sent(done, failure=self._failure(done))

    def _argv(self, tree: bytes, parent: bytes) -> list[str | bytes]:
        # Not -q: that would silence ssh as well.
        argv: list[str | bytes] = ["scp", "-r", "-p", "-B", "-F", str(self._remote.config)]
        if self._limits.bandwidth:
            argv += ["-l", str(max(1, self._limits.bandwidth * 8 // 1024))]
        target = os.fsencode(self._remote.site.target)
        return [*argv, "--", tree, target + b":" + self._far_path(parent) + b"/"]

    def _far_path(self, path: bytes) -> bytes:
        """The path as scp wants it: only since OpenSSH 9 is it not read by a shell there."""
        if re.fullmatch(rb"[A-Za-z0-9_./+-]*", path) or _ssh_major_version() >= 9:
            return path
        return quote(path)

    def _failure(self, done: Completed) -> Failure | None:
        if done.exit_code == 0:
            return None
        far = [line for line in done.stderr_lines if not _SCP_NEAR.search(line)]
        return (
            broken_off(done)
            or recognise(_SCP_SYMPTOMS, Scope.ENDPOINT, far)
            or self._remote.failure(done)
            or connection_failure(far)
            or endpoint_failure(far)
            or incomplete(done.stderr_lines)
        )


class Command:
    """The operator's own command: one for each file (``{file}``), or for those of a directory (``{batch}``).

    Parameters
    ----------
    template
        Its words are split first and the placeholders filled after, so that no value is split or
        read by a shell. ``{dest}`` is a directory at the endpoint, made before.
    """

    name = "commands"
    hashes = False

    def __init__(self, template: str, remote: Remote, limits: Limits) -> None:
        self._words = split_template(template)
        self._remote, self._limits = remote, limits

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
        groups = _by_directory(batch.good)
        batch.directories = tuple(groups)
        try:
            self._make_directories(dest, len(groups))
            return self._carry_all(batch, list(groups.values()), dest, progress)
        except RemoteError as error:
            return batch.sent(failure=error.failure)

    def _make_directories(self, dest: bytes, count: int) -> None:
        numbers = " ".join(str(number) for number in range(count))
        parent, name = (os.fsdecode(quote(part)) for part in os.path.split(dest))
        self._remote.run_script(
            f"cd -- {parent} && mkdir -p -- {name} && cd -- {name} && mkdir -p {numbers}",
            timeout=self._limits.timeout,
            stall_timeout=self._limits.stall_timeout,
        )

    def _carry_all(
        self, batch: "Consignment", groups: list[list[bytes]], dest: bytes, progress: Progress | None
    ) -> Sent:
        gone = 0
        first: Failure | None = None
        for number, group in enumerate(groups):
            for share in self._shares(group):
                done = self._carry(batch.root, share, b"%s/%d" % (dest, number), progress, gone)
                failure = self._failure(done)
                if failure is None:
                    gone += sum(batch.statuses[path].st_size for path in share)
                elif failure.scope is not Scope.FILE:
                    return batch.sent(done, failure=failure)
                elif len(share) == 1:
                    batch.failures[share[0]] = failure
                else:
                    first = first or failure
        return batch.sent(failure=first, gone=gone)

    def _shares(self, paths: Sequence[bytes]) -> Iterator[list[bytes]]:
        """The files of a directory, as many together as one command takes."""
        share: list[bytes] = []
        room = _ARGUMENT_BYTES
        for path in paths:
            if share and (b"{batch}" not in self._words or room < len(path)):
                yield share
                share, room = [], _ARGUMENT_BYTES
            share.append(path)
            room -= len(path)
        yield share

    def _carry(
        self, root: bytes, share: Sequence[bytes], dest: bytes, progress: Progress | None, gone: int
    ) -> Completed:
        files = [os.path.join(root, path) for path in share]
        values = {key: os.fsencode(value) for key, value in self._remote.site.parameters.items()}
        values |= {"dest": dest, "file": files[0]}
        argv: list[str | bytes] = []
        for word in self._words:
            argv += files if word == b"{batch}" else fill([word], values)
        try:
            return run(
                argv,
                timeout=self._limits.timeout,
                stall_timeout=self._limits.stall_timeout,
                on_progress=(lambda count: progress(gone + count)) if progress else None,
                env=ENVIRONMENT,
            )
        except ProcessError as error:
            raise RemoteError(not_there(error)) from error

    def _failure(self, done: Completed) -> Failure | None:
        if done.exit_code == 0:
            return None
        # Of an unknown program's messages only these tell for sure that no file is to blame: nothing
        # is written on this side.
        full = [line for line in done.stderr_lines if _WRITING_FAILED.search(line)]
        reason = done.last_words or f"exit code {done.exit_code}"
        return (
            broken_off(done)
            or connection_failure(done.stderr_lines)
            or endpoint_failure(full)
            or Failure(Scope.FILE, "transfer command failed", reason)
        )


_RSYNC_PARTIAL = (23, 24, 25)
_RSYNC_CONNECTION = (10, 12, 30, 35)
# A file that can't be read here is 23; of what can't be written there, the words sometimes get lost.
_RSYNC_FILE_IO = 11
_RSYNC_NEAR = (1, 2, 3, 4, 5, 13, 14, 21, 22)
# Since 3.2 a message names its process in brackets; before, only the receiving side does these things.
# That attributes can't be set is no reason not to look at what has arrived.
_RSYNC_FAR = re.compile(
    r"^rsync: (?!.*failed to set )(\[(receiver|generator|Receiver|server)\]"
    r"|(?!\[)(.*\b(mkstemp|mkdir|recv_generator|write failed on|rename|ftruncate|change_dir#[123])\b))"
)
_RSYNC_FAR_END = re.compile(r"^rsync error: .*\[(receiver|generator|Receiver|server)=")
_SCP_NEAR = re.compile(r"^scp: (open local|local |stat local|upload |failed to upload )")
_WRITING_FAILED = re.compile(r"No space left on device|[Qq]uota exceeded|Read-only file system|write remote ")

_SILENCE = "make the account's start-up files there print nothing unless the shell is interactive"
_RSYNC_SYMPTOMS = (
    Symptom(
        r"rsync: ([Cc]ommand )?not found|Unknown command:? '?rsync|rsync: No such file",
        "program missing at the endpoint",
        "install rsync there, on the PATH of a login without terminal, or set endpoint.transfer to scp",
        transient=False,
    ),
    Symptom(r"is your shell clean", "login shell prints", _SILENCE, transient=False),
    Symptom(
        r"(change_dir#\d|mkdir) .*No such file",
        "endpoint staging missing",
        "create endpoint.staging, or correct it",
    ),
)
_SCP_SYMPTOMS = (
    Symptom(r"Received message too long", "login shell prints", _SILENCE, transient=False),
    Symptom(
        r"subsystem request failed",
        "program missing at the endpoint",
        "sshd at the endpoint must offer sftp (Subsystem sftp), or have rsync installed there",
        transient=False,
    ),
    Symptom(
        r"^scp: (realpath|dest stat) .*No such file|^scp: .* exists but is not a directory",
        "endpoint staging missing",
        "create endpoint.staging, or correct it",
    ),
    # What scp says when it could not make a directory.
    Symptom(
        r"^scp: stat remote: ",
        "endpoint not writable",
        "the account must be able to write in endpoint.staging, and its disk have room",
    ),
)


class Consignment:
    """The files of one transfer: those that can be sent, and why the others can't."""

    def __init__(self, root: bytes, paths: Sequence[bytes]) -> None:
        self.root = root
        self.statuses: dict[bytes, os.stat_result] = {}
        self.failures: dict[bytes, Failure] = {}
        self.checksums: dict[bytes, Checksum] = {}
        """Of the files that were hashed as they were sent."""
        self.directories: tuple[bytes, ...] | None = None
        """For the numbered layout."""
        for path in paths:
            self._look(path)

    @property
    def good(self) -> list[bytes]:
        return list(self.statuses)

    def sent(
        self, done: Completed | None = None, *, failure: Failure | None = None, gone: int | None = None
    ) -> Sent:
        """The answer; after a failure every file is looked at again."""
        total = sum(status.st_size for status in self.statuses.values()) if gone is None else gone
        if failure is not None:
            for path in self.good:
                self._look(path)
        return Sent(
            layout="tree" if self.directories is None else "numbered",
            directories=self.directories or (),
            failures=self.failures,
            failure=failure,
            exit_code=done.exit_code if done else None,
            bytes=total if failure is None or gone is not None else 0,
            checksums=self.checksums,
        )

    def _look(self, path: bytes) -> None:
        whole = os.path.join(self.root, path)
        self.statuses.pop(path, None)
        try:
            status = os.lstat(whole)
        except OSError as error:
            self.failures[path] = not_sent(whole, error)
            return
        if not stat.S_ISREG(status.st_mode):
            self.failures[path] = _of_file("not a regular file", whole, "it is something else now")
        elif not os.access(whole, os.R_OK, effective_ids=True):
            self.failures[path] = unreadable(shown(whole), "no permission")
        else:
            self.statuses[path] = status


@contextmanager
def _tree_of_links(runtime: bytes, name: bytes, batch: Consignment) -> Iterator[bytes]:
    """A directory of that name whose files are symbolic links to those of the batch."""
    above = tempfile.mkdtemp(prefix=b"scp-", dir=runtime)
    tree = os.path.join(above, name)
    try:
        os.mkdir(tree)
        for directory in _by_directory(batch.good):
            os.makedirs(os.path.join(tree, directory), exist_ok=True)
        for path in batch.good:
            os.symlink(os.path.join(batch.root, path), os.path.join(tree, path))
        yield tree
    finally:
        shutil.rmtree(above, ignore_errors=True)


def _by_directory(paths: Sequence[bytes]) -> dict[bytes, list[bytes]]:
    groups: dict[bytes, list[bytes]] = {}
    for path in paths:
        groups.setdefault(os.path.dirname(path), []).append(path)
    return groups


def not_sent(path: bytes, error: OSError) -> Failure:
    """The failure of a file of the batch that can't be read, or is not there."""
    if isinstance(error, FileNotFoundError):
        return _of_file("file vanished", path, error.strerror)
    return unreadable(shown(path), error.strerror)


def _of_file(cause: str, path: bytes, reason: str | None) -> Failure:
    return Failure(Scope.FILE, cause, f"{shown(path)}: {reason}")


def broken_off(done: Completed) -> Failure | None:
    """The failure of a command that did not end by itself."""
    if done.ended == "stalled":
        return stalled(done)
    if done.ended == "timeout":
        reason = f"no end after {done.seconds:.0f} s"
        return Failure(Scope.FILE, "transfer took too long", reason, "raise general.timeout")
    if done.exit_code < 0:
        return Failure(Scope.FILE, KILLED, f"ended by signal {-done.exit_code}")
    return None


def incomplete(lines: Sequence[str]) -> Failure:
    """Files of the batch are to blame, or nobody knows: what arrived is seen at the endpoint."""
    return Failure(Scope.FILE, "transfer incomplete", next(iter(lines), "and nothing was said"))


def _rsync_failure(code: int, lines: Sequence[str], *, connected: bool) -> Failure:
    """By rsync's exit code (rsync(1), EXIT VALUES) and by which of its processes had the trouble."""
    reason = next((line for line in lines if line.startswith("rsync: ")), "") or f"rsync ended with {code}"
    if code in _RSYNC_PARTIAL:
        return incomplete([reason])
    if code in _RSYNC_CONNECTION and not connected:
        return Failure(Scope.CONNECTION, "connection lost", reason, "look at the network between the sites")
    far = code in _RSYNC_CONNECTION or code == _RSYNC_FILE_IO or code > 128
    if far or any(_RSYNC_FAR_END.search(line) for line in lines):
        return replace(command_failed(reason), cause="rsync failed at the endpoint")
    if code in _RSYNC_NEAR:
        return Failure(Scope.HANDOFF, "rsync failed", reason, "look at rsync's version and its environment")
    return incomplete([reason])


def _rsh_word(word: str) -> str:
    """A word as rsync reads it in its --rsh: a quotation mark is doubled, nothing else is special."""
    return "'" + word.replace("'", "''") + "'"


def _ssh_major_version() -> int:
    """Of OpenSSH, which scp comes with; 0 where it can't be told."""
    found = re.search(rb"OpenSSH_(\d+)", run(["ssh", "-V"]).stderr)
    return int(found[1]) if found else 0
