"""What is asked of the endpoint in one ssh command: to verify a batch and to put it in place.

The work is done over there by place.sh, a few processes for a whole batch; here its answer is judged.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from common.errors import Failure, RemoteError, Scope
from common.exchange import Receipts, delivery_note
from common.files import Checksum
from common.room import Room
from common.wording import path as shown
from handoff.script import (
    PATIENT,
    Answer,
    Asked,
    Definitions,
    Patience,
    absolute,
    ancestors,
    batch_name,
    file_failure,
    parents,
    plain_path,
    run_script,
    whole_failure,
)

_LARGE = 32 << 20
"""From so many bytes on, a file gets a process (3 ms) of its own, and several run side by side."""
_FEW = 8
_FEW_DIRECTORIES = 16
"""So many are flushed one by one; for more, flushing their filesystem is faster (measured)."""
_ROUNDS = 6
"""Rounds of one visit: for what is there already, what arrived badly, and who comes in between."""

Verdict = Literal["placed", "already", "conflict", "missing", "differs", "failed"]
Layout = Literal["tree", "numbered"]


@dataclass(frozen=True, slots=True)
class Expected:
    """A file as it should arrive; its path is relative to the buffer."""

    path: bytes
    size: int
    checksum: Checksum

    def __post_init__(self) -> None:
        plain_path(self.path)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one file at the endpoint."""

    path: bytes
    verdict: Verdict
    """``placed``: it is in the buffer, and was verified at rest; ``already``: it was there with the
    same digest; ``conflict``: other content has its name there; ``missing``: it is not in staging
    (to `ask`: not in the buffer); ``differs``: its copy in staging is not what was sent; ``failed``."""
    reason: str = ""
    found: Checksum | None = None
    """Of ``conflict`` and ``differs``: what is there."""
    failure: Failure | None = None
    """Of ``missing``, ``differs`` and ``failed``."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What became of a batch."""

    results: Mapping[bytes, Result]
    """By path, one for each expected file."""
    phases: Mapping[str, float]
    """Seconds at the endpoint, to the hundredth: ``look``, ``verify``, ``place``, ``flush``, ``clear``."""
    rounds: int
    """How many ssh commands it took."""
    space: Mapping[str, Room] = field(default_factory=dict)
    """Of ``staging`` and ``buffer``."""
    receipts: Receipts = field(default_factory=Receipts)


def place(
    remote: Asked,
    *,
    staging: bytes,
    buffer: bytes,
    batch: bytes,
    layout: Layout,
    directories: Sequence[bytes],
    expected: Sequence[Expected],
    note: bool,
    sent: str,
    discard: Sequence[bytes] = (),
    recorded: Sequence[bytes] = (),
    passing: Sequence[bytes] = (),
    openssl: bool = True,
    patience: Patience = PATIENT,
) -> Placement:
    """Verify a batch where it lies in staging, put it into the buffer, and clear its directory away.

    It can be repeated after any interruption: what has been placed is found ``already`` there.

    Parameters
    ----------
    batch
        The name of its directory in staging, ``batch-<owner>-<number>``.
    layout, directories
        How the transport laid the files down, as in its `Sent`.
    expected
        The files, with checksums of one algorithm.
    note, sent
        Whether a delivery note is written, and the time in it (ISO 8601, UTC).
    discard
        Paths that were sent but must not arrive: they have changed since, say.
    recorded, passing
        Receipts that have been noted, to be removed; and others that are not asked for again.
    openssl
        Whether openssl may compute sha256 there; where there is none, sha256sum does.

    Raises
    ------
    RemoteError
        The endpoint could not be asked, or something is wrong with the whole of it. Some of the
        files may have been placed.
    """
    site = Definitions(staging=absolute(staging), batch=batch_name(batch), layout=layout)
    site.add_list("moves", _moves(directories) if layout == "numbered" else (), each=2)
    site.add_receipts(recorded, passing)
    placing = _Placing(remote, absolute(buffer), expected, openssl=openssl, patience=patience)
    return placing.place(site, sent if note else None, discard)


def ask(
    remote: Asked,
    *,
    buffer: bytes,
    expected: Sequence[Expected],
    openssl: bool = True,
    patience: Patience = PATIENT,
) -> Mapping[bytes, Result]:
    """Which of these files are in the buffer already; nothing is changed there.

    The verdicts are ``already``, ``conflict``, ``missing`` (it is not there) and ``failed``.

    Raises
    ------
    RemoteError
        The endpoint could not be asked.
    """
    return _Placing(remote, absolute(buffer), expected, openssl=openssl, patience=patience).ask()


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A way in which a single file fails."""

    verdict: Verdict
    cause: str
    reason: str
    hint: str


_MISSING = _Trouble(
    "missing", "did not arrive", "it did not arrive in the endpoint's staging", "it is sent again"
)
_DIFFERENT = _Trouble(
    "differs",
    "arrived different",
    "what arrived in the endpoint's staging is not what was sent",
    "it is sent again; if it comes again, look at the network and at the disk there",
)
_UNREADABLE = _Trouble(
    "failed",
    "unreadable in staging",
    "its copy in the endpoint's staging can't be read back",
    "its permission bits, which are kept, must let its owner read it",
)
_IN_THE_WAY = _Trouble(
    "failed",
    "name taken at the endpoint",
    "what is in its way in the endpoint's buffer",
    "move away there what is in the way",
)
_RESTLESS = _Trouble(
    "failed",
    "changed while it was placed",
    f"something else changed staging or buffer in each of {_ROUNDS} rounds",
    "what else writes into the endpoint's staging or buffer?",
)
_KINDS = {"l": "a symbolic link", "d": "a directory", "f": "a file", "o": "something that is no file"}


class _Order:
    """Files in the order in which the script gets them and answers about them."""

    def __init__(self, expected: Iterable[Expected], *, singly: bool) -> None:
        self.singly = singly
        self._bulk: list[Expected] = []
        self._lone: list[Expected] = []
        every = tuple(expected)
        for file in every:
            # Names that the programs would escape in their answers, each in its own way.
            is_odd = not {10, 13, 92}.isdisjoint(file.path)
            is_lone = singly or is_odd or file.size >= _LARGE or len(every) == 1
            (self._lone if is_lone else self._bulk).append(file)
        self.files = (*self._bulk, *self._lone)
        self.directories = ancestors(file.path for file in self.files)

    def definitions(self) -> Definitions:
        digests = [file.checksum.digest for file in self._bulk]
        digests += [f"{number} {file.checksum.digest}" for number, file in enumerate(self._lone)]
        definitions = Definitions(
            count=len(self.files),
            algorithm=self.files[0].checksum.algorithm if self.files else "",
            expected="\n".join(digests),
            bulky=bool(self._bulk),
            several=len(self._lone) > 1,
            many=len(self.files) > _FEW or len(self.directories) > _FEW_DIRECTORIES,
        )
        for name, files in (("bulk", self._bulk), ("lone", self._lone)):
            definitions.add_list(name, [b"./" + file.path for file in files])
        definitions.add_list("directories", [b"./" + directory for directory in self.directories])
        return definitions

    def digests(self, answer: Answer, readable: Iterable[Expected]) -> dict[bytes, str]:
        """The digests in an answer, by path; `readable` are the files that the script tried to read."""
        tried = set(readable)
        bulk = [file for file in self._bulk if file in tried]
        lines = answer.one("found").decode(errors="replace").splitlines()
        numbered = [line.split(" ") for line in lines if re.fullmatch("[0-9]+ [0-9a-f]{64,128}", line)]
        digests = {self._lone[int(number)].path: digest for number, digest in numbered}
        plain = [line for line in lines if re.fullmatch("[0-9a-f]{64,128}", line)]
        # With one line less it is not known whose is missing.
        if len(plain) == len(bulk):
            digests |= {file.path: digest for file, digest in zip(bulk, plain, strict=True)}
        return digests


class _Placing:
    """Files on their way into the buffer: what is decided of them, and what is still open."""

    def __init__(
        self, remote: Asked, buffer: bytes, expected: Sequence[Expected], *, openssl: bool, patience: Patience
    ) -> None:
        if len({file.path for file in expected}) < len(expected):
            raise ValueError("a path is expected twice")
        if len({file.checksum.algorithm for file in expected}) > 1:
            raise ValueError("checksums of several algorithms")
        self._remote, self._buffer, self._patience = remote, buffer, patience
        self._openssl = openssl
        self._open = {file.path: file for file in expected}
        self._results: dict[bytes, Result] = {}
        self._discards: set[bytes] = set()
        self._singly = False
        self._rounds = 0
        self._phases: dict[str, float] = {}

    def ask(self) -> Mapping[bytes, Result]:
        self._ask()
        for path in list(self._open):
            self._decide(path, Result(path, "missing", "it is not in the endpoint's buffer"))
        return self._results

    def place(self, site: Definitions, sent: str | None, discard: Iterable[bytes]) -> Placement:
        self._discards |= set(discard)
        while True:
            if self._rounds == _ROUNDS:
                for path in list(self._open):
                    self._fail(path, _RESTLESS)
            order = self._order()
            note = delivery_note(order.files, sent) if sent else b""
            answer = self._visit("place", order, site, note)
            if "finished" in answer:
                break
            if "names" in answer:
                self._judge_buffer(order, answer)
            else:
                self._judge_staging(order, answer)
        if "why" in answer:
            self._settle(answer, site, sent)
        for path in list(self._open):
            self._decide(path, Result(path, "placed"))
        room = answer.room("buffer")
        space = {"staging": room, "buffer": room} if room else {}
        return Placement(self._results, self._phases, self._rounds, space, answer.receipts())

    def _order(self) -> _Order:
        return _Order(self._open.values(), singly=self._singly)

    def _visit(
        self, mode: str, order: _Order, site: Definitions, note: bytes = b"", *, retracting: bool = False
    ) -> Answer:
        definitions = Definitions(
            mode=mode,
            buffer=self._buffer,
            # Where it stumbled over one of many files, or over none, it may itself be to blame.
            openssl=self._openssl and not self._singly,
            note_size=len(note),
            retracting=retracting,
            discarding=bool(self._discards),
        )
        definitions.add_list("discards", [b"./" + path for path in sorted(self._discards)])
        whole = site + definitions + order.definitions()
        answer = run_script(self._remote, "place.sh", whole, note, patience=self._patience)
        self._rounds += 1
        for phase, seconds in answer.durations().items():
            self._phases[phase] = self._phases.get(phase, 0.0) + seconds
        return answer

    def _ask(self) -> None:
        """Decide the files that are in the buffer already, or that can't go there."""
        while self._open:
            order = self._order()
            site = Definitions(staging="/", batch="", layout="tree")
            self._judge_buffer(order, self._visit("ask", order, site))
            if order.singly == self._singly:
                break

    def _decide(self, path: bytes, result: Result) -> None:
        """What becomes of a file; its copy in staging, where there is one, is to go."""
        del self._open[path]
        self._discards.add(path)
        self._results[path] = result

    def _fail(self, path: bytes, trouble: _Trouble, detail: str = "", found: Checksum | None = None) -> None:
        reason = f"{shown(path)}: {trouble.reason}{detail}"
        failure = Failure(Scope.FILE, trouble.cause, reason, trouble.hint)
        self._decide(path, Result(path, trouble.verdict, reason, found, failure))

    def _judge_buffer(self, order: _Order, answer: Answer) -> None:
        """Take out the files whose names in the buffer are not free."""
        kinds = dict(zip(order.directories, answer.one("directories").decode(), strict=True))
        blocks = {directory: kind for directory, kind in kinds.items() if kind not in "d-"}
        there = list(zip(order.files, answer.one("names").decode(), strict=True))
        digests = order.digests(answer, [file for file, kind in there if kind == "f"])
        for file, kind in there:
            block = next((parent for parent in parents(file.path) if parent in blocks), None)
            if block is not None:
                self._fail(file.path, _IN_THE_WAY, f": {_KINDS[blocks[block]]}, {shown(block)}")
            elif kind == "f":
                self._judge_there(file, digests.get(file.path), order)
            elif kind != "-":
                self._fail(file.path, _IN_THE_WAY, f": {_KINDS[kind]}")

    def _judge_there(self, file: Expected, digest: str | None, order: _Order) -> None:
        if digest is None and not order.singly:
            self._singly = True
        elif digest is None:
            self._fail(file.path, _IN_THE_WAY, ": a file that can't be read")
        elif digest == file.checksum.digest:
            self._decide(file.path, Result(file.path, "already", "the endpoint had it already"))
        else:
            found = Checksum(file.checksum.algorithm, digest)
            reason = (
                f"{shown(file.path)}: the endpoint's buffer has other content of this name, {digest[:12]}…"
            )
            self._decide(file.path, Result(file.path, "conflict", reason, found))

    def _judge_staging(self, order: _Order, answer: Answer) -> None:
        """Take out the files that did not arrive as they should."""
        trouble = [line for line in answer.one("found").splitlines() if line.startswith(b"sync:")]
        if trouble:
            raise RemoteError(whole_failure(trouble[0], "the endpoint could not make it durable"))
        staged = _staged(answer)
        digests = order.digests(answer, order.files)
        # What had to go has gone by now; what else is there is not for us to place.
        self._discards = set(staged) - set(self._open)
        for file in order.files:
            copy = staged.get(file.path)
            if copy is None or not copy.is_whole:
                self._fail(file.path, _MISSING)
            elif copy.size != file.size:
                self._fail(file.path, _DIFFERENT, f": {copy.size} bytes instead of {file.size}")
            elif "hashed" in answer:
                self._judge_copy(file, digests.get(file.path), order)

    def _judge_copy(self, file: Expected, digest: str | None, order: _Order) -> None:
        if digest is None and not order.singly:
            self._singly = True
        elif digest is None:
            self._fail(file.path, _UNREADABLE)
        elif digest != file.checksum.digest:
            found = Checksum(file.checksum.algorithm, digest)
            self._fail(file.path, _DIFFERENT, f": its digest is {digest[:12]}…", found)

    def _settle(self, answer: Answer, site: Definitions, sent: str | None) -> None:
        """Find out what has become of a batch that was not placed as a whole, and correct its note."""
        linked = {path for path, copy in _staged(answer).items() if copy.links > 1}
        placed = {path: file for path, file in self._open.items() if path in linked}
        others = {path: file for path, file in self._open.items() if path not in linked}
        self._open = others.copy()
        self._ask()
        for path in list(self._open):
            self._decide(path, _not_placed(path, answer))
        # Ours or somebody else's: the same bytes, verified at rest, are in place.
        arrived = [path for path in others if self._results[path].verdict == "already"]
        for path in arrived:
            del self._results[path]
        self._open = placed | {path: others[path] for path in arrived}
        if sent and len(arrived) < len(others):
            note = delivery_note(self._open.values(), sent)
            self._visit("place", _Order((), singly=False), site, note, retracting=not note)


@dataclass(frozen=True, slots=True)
class _Copy:
    """What lies in staging under some name."""

    kind: bytes
    size: int
    links: int

    @property
    def is_whole(self) -> bool:
        """Whether it is a file that nothing else refers to."""
        return self.kind == b"f" and self.links == 1


def _staged(answer: Answer) -> dict[bytes, _Copy]:
    copies = {}
    for record in answer.all("staged"):
        kind, size, links, path = record.split(b" ", 3)
        copies[path] = _Copy(kind, int(size), int(links))
    return copies


def _not_placed(path: bytes, answer: Answer) -> Result:
    """The result of a file that could not be linked, from what the programs said."""
    lines = [line for line in answer.one("why").splitlines() if b": warning: " not in line]
    about = [line for line in lines if path in line]
    above = [line for line in lines if any(b"'./" + parent + b"'" in line for parent in parents(path))]
    message = next(iter([*about, *above, *lines[-1:]]), b"")
    what = f"{shown(path)}: it could not be put into the endpoint's buffer"
    failure = whole_failure(message, what) if "unwritable" in answer else file_failure(message, what)
    return Result(path, "failed", failure.reason, None, failure)


def _moves(directories: Sequence[bytes]) -> list[bytes]:
    """From what is numbered by source directory to a tree, outer directories first."""
    pairs = []
    for number, directory in enumerate(directories):
        if directory in (b"", b"."):
            pairs.append((0, number, b""))
        else:
            pairs.append((1 + directory.count(b"/"), number, b"/" + plain_path(directory)))
    return [word for _, number, below in sorted(pairs) for word in (b"./%d" % number, b"./tree" + below)]
