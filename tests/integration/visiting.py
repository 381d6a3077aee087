"""An endpoint on this machine for tests of visits, and the shells that it may have."""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common.errors import Failure, RemoteError, Scope
from common.files import Algorithm, Checksum, checksum
from common.process import Completed, run
from handoff.script import PATIENT, Asked, Patience
from handoff.survey import Survey, survey
from handoff.visit import Expected, Layout, Placement, Result, Verdict, ask, place
from tests.loopback import files_below, write_file

OWNER = "0123456789abcdef"
BATCH = f"batch-{OWNER}-1".encode()
SENT = "2026-07-01T02:03:04.567Z"
PROGRAMS = ("head", "find", "sync", "xargs", "openssl", "cut", "mv", "mkdir", "cp", "rm", "stat")
"""Those that an ordinary batch takes."""
SHELLS = ("dash", "bash --posix", "busybox sh")
EVERY_BYTE = bytes(set(range(1, 256)) - {ord("/")})
HOSTILE = [
    b"plain.fits",
    b"a b  c",
    b" ",
    b"-rf",
    b"--help",
    b"night/-n/x",
    b"$(touch pwned)",
    b"`touch pwned`;touch pwned",
    b"quote'double\"back\\slash\\n",
    b"new\nline\n",
    b"\n",
    b"carriage\r",
    b"*?[a]",
    b"~",
    b".dot/..dots/...",
    "Übergröße/星.fits".encode(),
    b"latin\xe9/\xff\xfe",
    EVERY_BYTE,
    EVERY_BYTE[:100] + b"/" + EVERY_BYTE[100:],
    b"d" * 255 + b"/" + b"f" * 255,
]


class Shell:
    """A shell on this machine in the place of the endpoint's; the script reaches it as over ssh."""

    def __init__(
        self, shell: str | Sequence[str] = "sh", *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.argv = shell.split() if isinstance(shell, str) else list(shell)
        self.environment = dict(environment or {})
        self.visits: list[Completed] = []

    def run_script(
        self,
        script: str,
        data: bytes = b"",
        *,
        timeout: float | None = None,
        stall_timeout: float | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> bytes:
        whole = os.fsencode(script)
        done = run(
            [*self.argv, "-c", f'LC_ALL=C; export LC_ALL; eval "$(head -c {len(whole)})"'],
            stdin=whole + data,
            timeout=timeout or 60,
            stall_timeout=stall_timeout,
            on_progress=on_progress,
            env=self.environment,
        )
        self.visits.append(done)
        if done.exit_code:
            raise RemoteError(Failure(Scope.CONNECTION, "ended", f"{done.exit_code}: {done.last_words}"))
        return done.stdout

    @property
    def complaints(self) -> bytes:
        """What its visits wrote to standard error."""
        return b"".join(done.stderr for done in self.visits)


class Endpoint:
    """A staging directory and a buffer, and what one does with them."""

    def __init__(self, directory: Path | bytes, remote: Asked | None = None) -> None:
        root = os.fsencode(directory)
        self.directory = Path(os.fsdecode(root))
        self.remote: Asked = remote or Shell()
        self.staging, self.buffer = os.path.join(root, b"staging"), os.path.join(root, b"buffer")
        for path in (self.staging, self.buffer):
            os.makedirs(path, exist_ok=True)

    def stage(
        self, contents: Mapping[bytes, bytes], *, batch: bytes = BATCH, algorithm: Algorithm = "sha256"
    ) -> list[Expected]:
        """Put files where a transport would, and say what is expected of them."""
        root = Path(os.fsdecode(os.path.join(self.staging, batch)))
        root.mkdir(exist_ok=True)
        expected = []
        for path, content in contents.items():
            whole = write_file(root, path, content)
            expected.append(Expected(path, len(content), checksum(whole, algorithm)[0]))
        return expected

    def put(self, path: bytes, content: bytes) -> None:
        """Have a file in the buffer already."""
        write_file(Path(os.fsdecode(self.buffer)), path, content)

    def place(
        self,
        expected: Sequence[Expected],
        *,
        batch: bytes = BATCH,
        layout: Layout = "tree",
        directories: Sequence[bytes] = (),
        note: bool = True,
        discard: Sequence[bytes] = (),
        recorded: Sequence[bytes] = (),
        passing: Sequence[bytes] = (),
        patience: Patience = PATIENT,
    ) -> Placement:
        return place(
            self.remote,
            staging=self.staging,
            buffer=self.buffer,
            batch=batch,
            layout=layout,
            directories=directories,
            expected=expected,
            note=note,
            sent=SENT,
            discard=discard,
            recorded=recorded,
            passing=passing,
            patience=patience,
        )

    def ask(self, expected: Sequence[Expected]) -> Mapping[bytes, Result]:
        return ask(self.remote, buffer=self.buffer, expected=expected)

    def survey(
        self,
        *,
        keep: Sequence[bytes] | None = (),
        aged: bool = False,
        leftovers: Sequence[bytes] = (),
        recorded: Sequence[bytes] = (),
        patience: Patience = PATIENT,
    ) -> Survey:
        return survey(
            self.remote,
            staging=self.staging,
            buffer=self.buffer,
            owner=OWNER,
            keep=keep,
            aged=aged,
            leftovers=leftovers,
            recorded=recorded,
            patience=patience,
        )

    @property
    def arrived(self) -> dict[bytes, bytes]:
        return files_below(self.directory / "buffer")

    @property
    def staged(self) -> list[bytes]:
        """What lies in staging and is not one of the shared directories."""
        return sorted(set(os.listdir(self.staging)) - {b".notes", b".receipts"})

    @property
    def notes(self) -> dict[bytes, bytes]:
        notes = self.directory / "staging" / ".notes"
        return files_below(notes) if notes.exists() else {}


def verdicts(results: Mapping[bytes, Result]) -> dict[bytes, Verdict]:
    return {path: result.verdict for path, result in results.items()}


def stand_in(directory: Path, name: str, body: str) -> dict[str, str]:
    """Put a program in the place of another; `body` may call ``real``. Gives the environment for it."""
    directory.mkdir(exist_ok=True)
    real = shutil.which(name) or "/nonexistent"
    program = directory / name
    program.write_text(f'#!/bin/sh\nreal() {{ {real} "$@"; }}\n{body}\n')
    program.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


def sha256(content: bytes) -> Checksum:
    return Checksum("sha256", hashlib.sha256(content).hexdigest())
