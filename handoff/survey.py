"""What is asked of the endpoint before anything is sent: what there is, what works, what is in the way."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from common.errors import Failure
from common.exchange import Receipts
from common.remote import program_missing
from common.room import Room
from handoff.script import (
    PATIENT,
    Answer,
    Asked,
    Definitions,
    Patience,
    absolute,
    batch_name,
    is_unsupported,
    run_script,
    whole_failure,
)

_GNU = "GNU coreutils (8.22 or later) and GNU findutils"


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory at the endpoint, as a survey found or made it."""

    room: Room | None = None
    writable: bool = False
    device: int | None = None
    mount: str | None = None
    """The kernel's number of the mount that it lies in; None where it is hidden."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look around at the endpoint found."""

    programs: Mapping[str, str]
    """By name, the first line of what it says of its version; of tar and rsync alone, but after a `look`."""
    digests: frozenset[str]
    """Those of ``openssl``, ``sha256sum``, ``b2sum`` that compute what they should."""
    clock_offset: float
    """Seconds that the endpoint's clock is ahead of ours."""
    clock_error: float
    """By so many seconds `clock_offset` may be wrong: half the round trip."""
    staging: Directory
    buffer: Directory
    hard_links: bool
    """Whether they work in staging; not known after a mere `look`."""
    cleared: tuple[bytes, ...]
    """Directories of leftover batches that were removed from staging."""
    problems: tuple[Failure, ...]
    """Why nothing can be delivered there."""
    receipts: Receipts = field(default_factory=Receipts)
    missing: frozenset[str] = frozenset()
    """After a mere `look`: which of ``staging`` and ``buffer`` are not there; what is said of them is said
    of the directory in which they would be made."""

    @property
    def failure(self) -> Failure | None:
        """The first of the problems."""
        return next(iter(self.problems), None)

    @property
    def openssl(self) -> bool:
        return "openssl" in self.digests

    @property
    def b2sum(self) -> bool:
        return "b2sum" in self.digests

    @property
    def rsync(self) -> bool:
        return "rsync" in self.programs

    @property
    def tar(self) -> bool:
        """Whether it is GNU's, which takes names of any bytes."""
        return "GNU tar" in self.programs.get("tar", "")

    @property
    def rsync_version(self) -> tuple[int, ...]:
        """Empty where it is not known."""
        return version_in(self.programs.get("rsync", ""))

    @property
    def same_filesystem(self) -> bool:
        """Whether a file can move from staging into the buffer: one device, and one mount of it."""
        staging, buffer = self.staging, self.buffer
        same_mount = staging.mount == buffer.mount or None in (staging.mount, buffer.mount)
        return staging.device is not None and staging.device == buffer.device and same_mount

    @property
    def space(self) -> Mapping[str, Room]:
        """Of ``staging`` and ``buffer``, where it could be asked."""
        rooms = {"staging": self.staging.room, "buffer": self.buffer.room}
        return {name: room for name, room in rooms.items() if room is not None}


def version_in(told: str) -> tuple[int, ...]:
    """The version that rsync tells of itself; empty if it does not."""
    found = re.search(r"version v?(\d+(?:\.\d+)*)", told)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def look(remote: Asked, *, staging: bytes, buffer: bytes, owner: str, patience: Patience = PATIENT) -> Survey:
    """Look around at the endpoint and change nothing there; else as `survey`."""
    definitions = Definitions(looking=True, making=False, clearing=False, aged=False)
    definitions.add_list("keep", ())
    definitions.add_list("leftovers", ())
    definitions.add_receipts(())
    site = Definitions(staging=absolute(staging), buffer=absolute(buffer), owner=_ledger_id(owner))
    return _asked(remote, site + definitions, patience, time.time)


def survey(
    remote: Asked,
    *,
    staging: bytes,
    buffer: bytes,
    owner: str,
    keep: Sequence[bytes] | None = (),
    aged: bool = False,
    leftovers: Sequence[bytes] = (),
    recorded: Sequence[bytes] = (),
    make: bool = True,
    patience: Patience = PATIENT,
    clock: Callable[[], float] = time.time,
) -> Survey:
    """Look around at the endpoint, make the directories, clear away our own leftovers.

    Parameters
    ----------
    owner
        The ledger's id: only batches that carry it in their name are ours.
    keep
        Batches in flight, which are left alone; None: clear away nothing but `leftovers`.
    aged
        Clear away only what has been left alone for ten minutes: one that is begun just now is not in
        `keep`. (A program over there can outlive the manager that started it, and leave something late.)
    leftovers
        Batches to be cleared away in any case.
    recorded
        Receipts that have been noted, to be removed.
    make
        Make staging and buffer where they are missing: right only where they have never been seen, for
        otherwise a filesystem is not mounted, and what it is mounted over would take its files.

    Raises
    ------
    RemoteError
        The endpoint could not be asked. (What is wrong over there is in the survey.)
    """
    definitions = Definitions(
        staging=absolute(staging),
        buffer=absolute(buffer),
        looking=False,
        making=make,
        owner=_ledger_id(owner),
        clearing=keep is not None,
        aged=aged,
    )
    definitions.add_list("keep", [batch_name(name) for name in keep or ()])
    definitions.add_list("leftovers", [batch_name(name) for name in leftovers])
    definitions.add_receipts(recorded)
    return _asked(remote, definitions, patience, clock)


def _asked(remote: Asked, definitions: Definitions, patience: Patience, clock: Callable[[], float]) -> Survey:
    before = clock()
    answer = run_script(remote, "survey.sh", definitions, patience=patience)
    trip = max(0.0, clock() - before - answer.durations().get("end", 0.0))
    staging_found, buffer_found = _directory(answer, "staging"), _directory(answer, "buffer")
    found = Survey(
        programs=dict(_pair(value) for value in answer.all("program")),
        digests=_digests(answer),
        clock_offset=float(answer.one("clock")) - (before + trip / 2),
        clock_error=trip / 2,
        staging=staging_found,
        buffer=buffer_found,
        hard_links="linked" in answer,
        cleared=tuple(answer.all("cleared")),
        problems=(),
        receipts=answer.receipts(),
        missing=frozenset(name.decode() for name in answer.all("missing")),
    )
    return replace(found, problems=tuple(_problems(answer, found)))


def _problems(answer: Answer, found: Survey) -> Iterator[Failure]:
    lacking = [name.decode() for name in answer.all("lacks")]
    if not found.digests & {"sha256sum", "b2sum"}:
        lacking.append("sha256sum or b2sum")
    if lacking:
        names = ", ".join(lacking)
        yield program_missing(names, f"the endpoint lacks {names}")
    unusable = dict(_pair(value) for value in answer.all("unusable"))
    rehearsed = answer.one("rehearsed")
    for name, directory in (("staging", found.staging), ("buffer", found.buffer)):
        if name in unusable:
            yield whole_failure(unusable[name].encode(), f"the endpoint's {name} can't be used")
        elif directory.room is None or directory.device is None:
            yield program_missing(_GNU, "the endpoint's `stat` is not GNU's")
        elif not directory.writable:
            told = rehearsed if b"Read-only file system" in rehearsed else b"Permission denied"
            what = "made where it should be" if name in found.missing else "written to"
            yield whole_failure(told, f"the endpoint's {name} can't be {what}")
    if unusable:
        return
    if not found.same_filesystem:
        yield whole_failure(b"cross-device link", "the endpoint's staging and buffer can't be linked")
    if "looked" in answer:
        return
    if "written" not in answer:
        yield whole_failure(rehearsed, "nothing can be written into the endpoint's staging")
    elif rehearsed and not found.hard_links and not is_unsupported(rehearsed):
        yield whole_failure(rehearsed, "a rehearsal in the endpoint's staging failed")


def _directory(answer: Answer, name: str) -> Directory:
    device = _named(answer, "device", name)
    return Directory(
        room=answer.room(name),
        writable=name.encode() in answer.all("writable"),
        device=int(device) if device.isdigit() else None,
        mount=mount_of(_named(answer, "physical", name), answer.one("mounts")),
    )


def mount_of(path: bytes, mounts: bytes) -> str | None:
    """The number of the mount that a path without links lies in, from /proc/self/mountinfo (proc(5)).

    A device number is not enough: bind mounts share it, and no link leads from one to another.
    """
    best: tuple[int, str] | None = None
    for line in mounts.splitlines():
        words = line.split(b" ")
        if len(words) < 5:
            continue
        point = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), words[4]).rstrip(b"/")
        # Of two at one point, the later one lies on top.
        if (path + b"/").startswith(point + b"/") and (best is None or len(point) >= best[0]):
            best = (len(point), words[0].decode())
    return best[1] if best else None


def _digests(answer: Answer) -> frozenset[str]:
    """The programs that computed what Python computes."""
    right = {
        "openssl": hashlib.sha256(b"dbb").hexdigest(),
        "sha256sum": hashlib.sha256(b"dbb").hexdigest(),
        "b2sum": hashlib.blake2b(b"dbb").hexdigest(),
    }
    told = dict(_pair(value) for value in answer.all("digest"))
    return frozenset(name for name, digest in right.items() if told.get(name, "").startswith(f"{digest} "))


def _named(answer: Answer, word: str, name: str) -> bytes:
    prefix = name.encode() + b" "
    return next((value[len(prefix) :] for value in answer.all(word) if value.startswith(prefix)), b"")


def _pair(value: bytes) -> tuple[str, str]:
    name, _, rest = value.decode(errors="backslashreplace").partition(" ")
    return name, rest


def _ledger_id(owner: str) -> str:
    if not re.fullmatch("[0-9a-f]{16}", owner):
        raise ValueError(f"not the id of a ledger: {owner!r}")
    return owner
