"""What can be known of the handoff manager's surroundings before files depend on them."""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from common import wording
from common.errors import LedgerError, RemoteError
from common.health import Check, Result, Subject, common_checks, directory, fail, goal, graded_room, ok, warn
from common.ledger.reader import LedgerReader
from common.process import run
from common.remote import Remote, split_template
from handoff.config import HandoffConfig
from handoff.lifecycle import LIFECYCLE
from handoff.route import Orders, Route, TransferName, fast_algorithm, transfer_of
from handoff.survey import Survey, look, survey

_OFFSET = 5.0
"""Seconds that the endpoint's clock may differ from ours."""
_RELEASES = (r"\((GNU \w+)\) (\S+)", r"^(rsync) +version (\S+)", r"^(OpenSSL) (\S+)", r"^(OpenSSH)_([^\s,]+)")
_PATIENCE = 60.0
"""Seconds for all that is asked of the endpoint."""
_CANARY = 120.0


def checks(path: Path, config: HandoffConfig, *, canary: bool) -> Sequence[Check]:
    """Everything to look at; with `canary` a file is sent through the whole path, too."""
    buffer, holding = os.fsencode(config.handoff.buffer), os.fsencode(config.handoff.holding)
    subject = Subject(
        program="hdfmgr",
        config=path,
        notes=config.notes(),
        lifecycle=LIFECYCLE,
        ledger=config.ledger_path,
        buffer=buffer,
        exclude=config.general.exclude_list,
        disks={"buffer": buffer, "holding": holding, "ledger": os.fsencode(config.ledger_path.parent)},
        min_free=config.general.min_free,
        log=config.logging.file,
    )
    found = [
        *common_checks(subject),
        Check("buffer", lambda: directory("buffer", buffer, "the instrument writes into it")),
        Check("holding", lambda: goal("holding", holding, buffer, "delivered files are moved into it")),
        Check("programs here", lambda: _programs(config)),
        Check("endpoint", lambda: _endpoint(config), limit=_PATIENCE),
    ]
    if canary:
        found.append(Check("canary", lambda: _canary(config), limit=_CANARY))
    return found


def _programs(config: HandoffConfig) -> Iterator[Result]:
    endpoint = config.endpoint
    needed = [] if endpoint.commands.remote else ["ssh"]
    if endpoint.commands.transfer:
        needed.append(split_template(endpoint.commands.transfer)[0].decode())
    elif endpoint.transfer != "auto":
        needed.append(endpoint.transfer)
    if endpoint.commands.remote:
        needed.append(split_template(endpoint.commands.remote)[0].decode())
    for program in dict.fromkeys(needed):
        where = shutil.which(program)
        if where is None:
            yield fail("programs here", f"{program} is not there", f"install {program}, or put it on PATH")
        else:
            yield ok("programs here", f"{where}{_version(program)}")


def _version(program: str) -> str:
    """What those say of themselves whose option for that is known."""
    option = {"ssh": "-V", "rsync": "--version"}.get(os.path.basename(program))
    if option is None:
        return ""
    done = run([program, option], timeout=5)
    said = _release((done.stdout or done.stderr).decode(errors="backslashreplace").partition("\n")[0])
    return f": {said}" if said else ""


def _release(line: str) -> str:
    """The name and number in the first line that a program says of its version."""
    found = next((match for match in (re.search(form, line) for form in _RELEASES) if match), None)
    return " ".join(found.groups()) if found else line


def _endpoint(config: HandoffConfig) -> Iterator[Result]:
    own, login, route = config.endpoint, "ssh login", Route.of(config, _owner(config))
    with _remote(config, "check") as remote:
        started = time.monotonic()
        try:
            remote.connect()
            found = look(
                remote,
                staging=route.staging,
                buffer=route.endpoint_buffer,
                owner=route.owner,
                patience=route.patience,
            )
        except RemoteError as error:
            failure = error.failure
            name = "host key" if "host key" in failure.cause else login
            yield fail(name, f"{failure.cause}: {failure.reason}", failure.hint)
            hidden = ("endpoint programs", "staging and buffer", "endpoint space", "endpoint clock")
            yield warn("endpoint", f"not looked at: {', '.join(hidden)}", f"mend what {name} tells first")
            return
        took, greeting = time.monotonic() - started, remote.greeting
    if own.commands.remote is None:
        yield ok("host key", f"{own.host} is known")
    yield (
        ok(login, f"{own.user}@{own.host}" if own.user else own.host)
        if took < 5
        else warn(
            login,
            f"it took {wording.duration(took)}",
            "look at the network, and at DNS and UseDNS at the endpoint",
        )
    )
    if greeting.strip():
        yield _noisy(greeting, is_fatal=transfer_of(config, found) == "rsync")
    yield from _surveyed(config, found)


def _noisy(greeting: bytes, *, is_fatal: bool) -> Result:
    """A login that prints: rsync takes that for its other half's words, and others may, too."""
    first = greeting.strip()[:100].decode(errors="backslashreplace").splitlines()[0]
    hint = "make the account's start-up files there print nothing unless the shell is interactive"
    grade = fail if is_fatal else warn
    return grade("login shell", f"it prints before every command: {wording.text(first)}", hint)


def _surveyed(config: HandoffConfig, found: Survey) -> Iterator[Result]:
    for problem in found.problems:
        yield fail("endpoint", f"{problem.cause}: {problem.reason}", problem.hint)
    places = {"staging": config.endpoint.staging, "buffer": config.endpoint.buffer}
    for name in sorted(found.missing):
        yield _missing(f"the endpoint's {name}, {places[name]}", is_known=_has_seen_endpoint(config))
    releases = dict.fromkeys(_release(line) for line in found.programs.values())
    yield ok("endpoint programs", "; ".join(releases) or "none tells its version")
    if config.endpoint.transfer == "rsync" and not found.rsync and not config.endpoint.commands.transfer:
        yield fail("endpoint programs", "rsync is not there", "install it, or set endpoint.transfer to auto")
    if config.endpoint.transfer == "auto" and not config.endpoint.commands.transfer:
        yield _chosen(transfer_of(config, found))
    both = " and ".join(places.values())
    if found.same_filesystem:
        yield ok("staging and buffer", f"{both} lie on one filesystem")
    elif not found.problems:
        yield fail(
            "staging and buffer",
            f"{both} do not lie on one filesystem, and one mount of it",
            "files appear in the buffer by a link from staging: put both on one",
        )
    for name, room in found.space.items():
        yield from graded_room(f"space: endpoint {name}", room, config.general.min_free)
    yield _clock(found)


def _chosen(transfer: TransferName) -> Result:
    """What ``endpoint.transfer: auto`` comes to."""
    if transfer == "stream":
        return ok("transfer", "files go as a tar stream through ssh")
    if shutil.which(transfer):
        return ok("transfer", f"files go by {transfer}; with GNU tar at the endpoint it would be faster")
    detail = "there is neither GNU tar at the endpoint, nor rsync at both ends, nor scp here"
    return fail("transfer", detail, "install GNU tar there")


def _missing(what: str, *, is_known: bool) -> Result:
    """A directory that is not there; only what has never been seen is made."""
    if is_known:
        return fail(
            "endpoint",
            f"{what}, is gone",
            "mount its filesystem; the manager makes it only before its first delivery",
        )
    return warn(
        "endpoint",
        f"{what}, is not there yet: the first start makes it",
        "is it named right, and is its filesystem mounted? Made by hand, it can't be made elsewhere",
    )


def _clock(found: Survey) -> Result:
    offset = abs(found.clock_offset)
    told = f"{wording.duration(offset)} {'ahead of' if found.clock_offset > 0 else 'behind'} ours"
    if offset - found.clock_error > _OFFSET:
        return warn(
            "endpoint clock", told, "set both clocks by a time server; ages and logs mislead until then"
        )
    return ok("endpoint clock", told if offset > found.clock_error else "as ours, as far as can be told")


def _canary(config: HandoffConfig) -> Iterator[Result]:
    from handoff.canary import fly

    route = Route.of(config, _owner(config))
    with _remote(config, "canary") as remote:
        try:
            found = survey(
                remote,
                staging=route.staging,
                buffer=route.endpoint_buffer,
                owner=route.owner,
                keep=None,
                make=not _has_seen_endpoint(config),
                patience=route.patience,
            )
            if found.failure:
                yield fail("canary", f"not sent: {found.failure.reason}", found.failure.hint)
                return
            yield from fly(route, remote, _orders(config, found))
        except RemoteError as error:
            yield fail("canary", f"{error.failure.cause}: {error.failure.reason}", error.failure.hint)


@contextmanager
def _remote(config: HandoffConfig, name: str) -> Iterator[Remote]:
    with (
        TemporaryDirectory(prefix="dbb-check-", dir="/tmp") as runtime,  # short, as sockets need it
        Remote(config.endpoint.site(), Path(runtime), name) as remote,
    ):
        yield remote


def _orders(config: HandoffConfig, found: Survey) -> Orders:
    return Orders(fast_algorithm(found), transfer_of(config, found), found.openssl)


def _has_seen_endpoint(config: HandoffConfig) -> bool:
    """Whether a manager has been there: then it has chosen an algorithm."""
    try:
        with LedgerReader.open(config.ledger_path, manager=LIFECYCLE.manager) as reader:
            return reader.algorithm is not None
    except LedgerError:
        return False


def _owner(config: HandoffConfig) -> str:
    """The ledger's id, so that the manager clears away what a killed check leaves at the endpoint."""
    try:
        with LedgerReader.open(config.ledger_path, manager=LIFECYCLE.manager) as reader:
            return reader.id
    except LedgerError:
        return secrets.token_hex(8)
