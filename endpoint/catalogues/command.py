"""The catalogue `command`: any program that ingests files, as a template of its arguments."""

import json
import logging
import os
import re
import shutil
import tempfile
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from common.config.quantities import duration
from common.errors import ProcessError
from common.placing import is_gone
from common.process import Completed, run
from common.remote import fill, split_template
from endpoint.catalogues.contract import CatalogueError, Request, Result, Verdict

log = logging.getLogger(__name__)

_KEYS = ("run", "timeout", "is_taken")
_PLACEHOLDERS = ("files", "file", "name", "report")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_MOST_ARGUMENTS = 256 << 10
"""Bytes in one command; the kernel's limit depends on the stack's, and is seldom below a megabyte."""
_STATES = {
    "ingested": Verdict.INGESTED,
    "already": Verdict.ALREADY,
    "conflict": Verdict.CONFLICT,
    "invalid": Verdict.INVALID,
    "ignored": Verdict.IGNORED,
    "failed": Verdict.FAILED,
}
"""What a report may say of a file."""


@dataclass(frozen=True, slots=True)
class Template:
    """A command, split into words; what fills its placeholders is never split and never seen by a shell."""

    words: tuple[bytes, ...]
    names: frozenset[str]
    """Of the placeholders in it."""

    @classmethod
    def parse(cls, text: object) -> "Template":
        """Read it as it stands in a configuration: a string, or a list of words.

        Raises
        ------
        ValueError
            What is wrong with it.
        """
        words = _words(text)
        names = frozenset(name for word in words for name in _PLACEHOLDER.findall(os.fsdecode(word)))
        for name in sorted(names - set(_PLACEHOLDERS)):
            near = get_close_matches(name, _PLACEHOLDERS, n=1)
            raise ValueError(
                f"uses {{{name}}}, which is nothing" + (f"; did you mean {{{near[0]}}}?" if near else "")
            )
        if not names & {"files", "file", "name"}:
            raise ValueError("must contain {files} for all files of a batch, or {file} for one at a time")
        if "files" in names and names & {"file", "name"}:
            raise ValueError("must contain either {files}, or {file} and {name}, not both")
        if any(b"{files}" in word and word != b"{files}" for word in words):
            raise ValueError("must have {files} as a word of its own; it becomes one argument for each file")
        if _PLACEHOLDER.search(os.fsdecode(words[0])):
            raise ValueError("must begin with the name of a program")
        return cls(tuple(words), names)

    @property
    def program(self) -> str:
        """What is run."""
        return os.fsdecode(self.words[0])

    def argv(self, requests: Sequence[Request], report: bytes) -> list[bytes]:
        """The command for some files; for one, where it does not have ``{files}``."""
        values = {"file": requests[0].path, "name": requests[0].name, "report": report}
        argv: list[bytes] = []
        for word in self.words:
            argv += [request.path for request in requests] if word == b"{files}" else fill([word], values)
        return argv


class CommandCatalogue:
    """Runs a program for files; its exit code, or its report, tells what became of them.

    Its configuration: `run`, the command; `timeout` of one run; and `is_taken`, whether the program moves
    files away that it ingests.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        for key in config.keys() - set(_KEYS):
            near = get_close_matches(key, _KEYS, n=1)
            raise ValueError(f"{key}: unknown key" + (f"; did you mean {near[0]}?" if near else ""))
        try:
            self._template = Template.parse(config.get("run"))
        except ValueError as error:
            raise ValueError(f"run: {error}") from error
        try:
            self._timeout = None if config.get("timeout") is None else duration(config["timeout"])
        except ValueError as error:
            raise ValueError(f"timeout: {error}") from error
        is_taken = config.get("is_taken", False)
        if not isinstance(is_taken, bool):
            raise ValueError("is_taken: must be true or false")
        self._is_taken = is_taken
        self._stack = ExitStack()
        self._reports: Path | None = None

    def open(self) -> None:
        self._found()
        if "report" in self._template.names:
            self._reports = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="dbb-report-")))

    def ingest(self, requests: Sequence[Request]) -> Iterator[Result]:
        waiting = requests
        if self._is_taken:
            gone = {request.id for request in requests if is_gone(request.path)}
            yield from (Result(one, Verdict.ALREADY, "the program had taken it before") for one in gone)
            waiting = [request for request in requests if request.id not in gone]
        if "files" not in self._template.names:
            for request in waiting:
                yield self._alone(request)
            return
        for part in _parts(waiting):
            yield from self._together(part)

    def version(self) -> str:
        return f"command {self._found()}"

    def close(self) -> None:
        self._stack.close()

    def _found(self) -> str:
        """Where the program is."""
        program = self._template.program
        found = shutil.which(program)
        if found is None:
            raise CatalogueError(
                f"{program}: not found, so that nothing can be ingested",
                f"install {program}, or add its directory to the manager's PATH; "
                "`catalogue: sqlite` and `catalogue: butler` need no other program",
            )
        return found

    def _together(self, requests: Sequence[Request]) -> Iterator[Result]:
        """One run for all of them, then one for each that this one left without success."""
        if len(requests) > 1:
            done = self._run(requests)
            found = {request.id: self._verdict(request, done) for request in requests}
            yield from (result for result in found.values() if result)
            requests = [request for request in requests if not found[request.id]]
        for request in requests:
            yield self._alone(request)

    def _alone(self, request: Request) -> Result:
        done = self._run([request])
        if result := self._verdict(request, done):
            return result
        how = _how(done.completed)
        if self._is_taken:
            how = f"{self._template.program} left it where it was ({how})"
        return Result(request.id, Verdict.FAILED, how)

    def _verdict(self, request: Request, done: "_Done") -> Result | None:
        """What a run has made of a file; None if it has to be tried alone, or has failed there."""
        told = done.told.get(request.path) or done.told.get(request.name)
        if told is not None:
            return Result(request.id, *told)
        if self._is_taken:
            return Result(request.id, Verdict.INGESTED) if is_gone(request.path) else None
        return Result(request.id, Verdict.INGESTED) if done.completed.exit_code == 0 else None

    def _run(self, requests: Sequence[Request]) -> "_Done":
        report = self._reports / "report.jsonl" if self._reports else None
        if report is not None:
            report.unlink(missing_ok=True)
        argv = self._template.argv(requests, bytes(report or Path()))
        try:
            completed = run(argv, timeout=self._timeout)
        except ProcessError as error:
            self._found()
            raise CatalogueError(error.message, error.hint) from error
        return _Done(completed, _read_report(report) if report else {})


@dataclass(frozen=True, slots=True)
class _Done:
    """A run of the program."""

    completed: Completed
    told: Mapping[bytes, tuple[Verdict, str]]
    """What its report says, by path or name."""


def _words(text: object) -> list[bytes]:
    if isinstance(text, list | tuple) and text and all(isinstance(word, str) for word in text):
        return [os.fsencode(word) for word in text]
    if not isinstance(text, str) or not text.strip():
        raise ValueError("must be a command, such as 'ingest --into /repo {files}'")
    try:
        return split_template(text)
    except ValueError as error:
        raise ValueError(f"can't be split into words: {str(error).lower()}") from error


def _parts(requests: Sequence[Request]) -> Iterator[list[Request]]:
    """So many at a time as one command can take."""
    part: list[Request] = []
    length = 0
    for request in requests:
        if part and length + len(request.path) > _MOST_ARGUMENTS:
            yield part
            part, length = [], 0
        part.append(request)
        length += len(request.path) + 9  # with its end, and a pointer to it
    if part:
        yield part


def _read_report(path: Path) -> dict[bytes, tuple[Verdict, str]]:
    """What it says of files; lines that make no sense are told and passed over."""
    told: dict[bytes, tuple[Verdict, str]] = {}
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return told
    for line in lines:
        try:
            record = json.loads(line)
            state = _STATES[record["state"]]
            told[_path(record["path"])] = state, str(record.get("reason") or "")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            log.warning("a line of the report makes no sense: %r", line[:200])
    return told


def _path(value: object) -> bytes:
    """A path as JSON has it: a string, or ``{"base64": …}``."""
    if isinstance(value, dict):
        return b64decode(value["base64"], validate=True)
    if not isinstance(value, str):
        raise ValueError("a path must be a string")
    # Python's own json writes bytes that are no UTF-8 like this.
    return value.encode("utf-8", "surrogateescape")


def _how(completed: Completed) -> str:
    """How a run ended, with its last words."""
    if completed.ended == "timeout":
        how = f"killed after {completed.seconds:.0f} s"
    elif completed.exit_code < 0:
        how = f"killed by signal {-completed.exit_code}"
    else:
        how = f"exit code {completed.exit_code}"
    return f"{how}: {completed.last_words}" if completed.last_words else how
