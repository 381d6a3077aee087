"""Catalogues for tests: requests to give them, one that misbehaves, and a third party's to be installed."""

import ctypes
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from common.files import Checksum, checksum
from endpoint.catalogues.contract import CatalogueError, Request, Result, Verdict
from endpoint.catalogues.loading import Source
from tests.fits import night

HOSTILE_NAMES = (
    b"night/plain.dat",
    b"night/with space.dat",
    b"night/new\nline.dat",
    b'night/it\'s "quoted".dat',
    b"night/not utf-8 \xff\xfe.dat",
    b"night/a#b.dat",
    b"night/a%20b.dat",
    b"night/$(touch pwned);`id`.dat",
    b"night/{file} {name}.dat",
    b"night/*.dat",
    b"-rf.dat",
)


def request(root: Path, name: bytes, content: bytes = b"some content", *, number: int = 1) -> Request:
    """A file below a root, written there, and how a catalogue is asked to ingest it."""
    path = os.path.join(bytes(root), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    return Request(number, path, name, len(content), checksum(path, "sha256")[0])


def requests(root: Path, names: Sequence[bytes]) -> list[Request]:
    """One for each name, with contents of their own, numbered from 1."""
    return [request(root, name, b"content of " + name, number=number) for number, name in enumerate(names, 1)]


def imagined(*names: str) -> list[Request]:
    """Requests for files that are not there, for catalogues that do not look."""
    digest = Checksum("sha256", "0" * 64)
    return [
        Request(number, f"/data/{name}".encode(), name.encode(), 1, digest)
        for number, name in enumerate(names, 1)
    ]


class NastyCatalogue:
    """Does to a file what the file's name says, once or always, and keeps the others' names in a file.

    Its configuration: `path`, that file; `open`, what it does when it is opened; and `deadly`, a file: while
    there is one, it crashes over all others.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        for key in config.keys() - {"path", "open", "deadly"}:
            raise ValueError(f"{key}: not known")
        self._path = str(config["path"])
        self._open = str(config.get("open", ""))
        self._deadly = config.get("deadly")

    def open(self) -> None:
        self._do(self._open)
        with open(f"{self._path}.opened", "a") as file:
            file.write(f"{os.getpid()}\n")

    def ingest(self, requests: Sequence[Request]) -> Iterator[Result]:
        for request in requests:
            if self._deadly and Path(str(self._deadly)).exists():
                self._do("segfault")
            yield from self._results(request)

    def version(self) -> str:
        return "nasty 1.0"

    def close(self) -> None:
        Path(f"{self._path}.closed").touch()

    def _results(self, request: Request) -> Iterator[Result]:
        deed = request.name.decode().split(".")[0]
        if deed.startswith("once-"):
            deed = deed.removeprefix("once-") if self._is_first(deed) else ""
        match deed:
            case "skip":
                return
            case "twice":
                yield Result(request.id, Verdict.INGESTED)
            case "stranger":
                yield Result(request.id + 1_000_000, Verdict.INGESTED)
            case "garbage":
                yield {"id": request.id, "function": lambda: None}  # type: ignore[misc]
            case "nonsense":
                yield Result(request.id, "splendid")  # type: ignore[arg-type]
                return
            case "pretends":
                yield Result(request.id, Verdict.CRASHED, "not really")
                return
            case "talks":
                yield Result(request.id, Verdict.FAILED, "very " * 100_000)
                return
            case "invalid":
                yield Result(request.id, Verdict.INVALID, "no header")
                return
            case _:
                self._do(deed)
        with open(self._path, "a") as file:
            file.write(f"{request.name.decode()}\n")
        yield Result(request.id, Verdict.INGESTED)

    def _is_first(self, deed: str) -> bool:
        mark = Path(f"{self._path}.{deed}")
        if mark.exists():
            return False
        mark.touch()
        return True

    def _do(self, deed: str) -> None:
        match deed:
            case "hang":
                time.sleep(1000)
            case "slow":
                time.sleep(0.5)
            case "exit":
                os._exit(0)
            case "leave":
                sys.exit(3)
            case "segfault":
                ctypes.string_at(0)
            case "abort":
                os.abort()
            case "raise":
                raise RuntimeError("what nobody had thought of")
            case "refuse":
                raise CatalogueError("the catalogue is locked", "unlock it")
            case "print":
                sys.stdout.write("chatter\n" * 12_800)
                sys.stderr.write("complaint\n" * 12_800)
            case "fork":
                if os.fork() == 0:
                    time.sleep(1000)
            case "return":
                os.fork()
            case "last-words":
                os.write(2, b"the disk is on fire\n")
                os._exit(7)


_STAND_IN = '''#!{python} -SE
"""A stand-in for a program that ingests files: keeps their names, each once."""
import fcntl, os, sys
with open({index!r}, "a+b") as index:
    fcntl.flock(index, fcntl.LOCK_EX)
    index.seek(0)
    known = index.read().split(b"\\0")
    for word in sys.argv[1:]:
        path = os.fsencode(word)
        if path not in known:
            index.write(path + b"\\0")
'''


def stand_in(directory: Path, name: str, script: str) -> str:
    """A program of that name, for PATH; gives PATH with its directory in front."""
    program = directory / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(script)
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


def install(directory: Path) -> str:
    """Install the documentation's example as a distribution with an entry point; gives PYTHONPATH."""
    text = (Path(__file__).parent.parent / "docs" / "catalogues.md").read_text().split("## Your own")[1]
    code, entry_points = (
        text.split(f"```{language}\n")[1].split("```")[0] for language in ("python", "toml")
    )
    place = directory / "site-packages"
    metadata = place / "observatory-1.0.dist-info"
    metadata.mkdir(parents=True)
    (place / "observatory.py").write_text(code)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: observatory\nVersion: 1.0\n")
    # In a distribution, the table of pyproject.toml has become a section.
    section = entry_points.replace('[project.entry-points."dbb.catalogues"]', "[dbb.catalogues]")
    (metadata / "entry_points.txt").write_text(section.replace('"', ""))
    return str(place)


@dataclass(frozen=True, slots=True)
class Kind:
    """A catalogue as the conformance suite knows it."""

    source: Source
    config: Callable[[Path], Mapping[str, object]]
    """Its configuration, with all that it keeps below a directory."""
    names: Callable[[Path], list[bytes]]
    """The names of all files that are in it, found by other means than its own."""
    environment: Callable[[Path], Mapping[str, str]] = lambda _: {}
    content: Callable[[int], bytes] = lambda number: b"content %d" % number
    """A file that it takes, different for each number."""
    suffix: bytes = b".dat"
    """Of the names of files that it takes."""
    is_forgetful: bool = False
    """It keeps nothing by which it would know a file again."""
    goes_by_headers: bool = False
    """It knows a file again by what its headers say and by its place, and what it can't name is invalid."""


def _of_sqlite(directory: Path) -> list[bytes]:
    connection = sqlite3.connect(directory / "catalogue.db")
    try:
        found = [name for (name,) in connection.execute("SELECT name FROM files")]
    finally:
        connection.close()
    return [name if isinstance(name, bytes) else name.encode() for name in found]


def _of_butler(directory: Path) -> list[bytes]:
    connection = sqlite3.connect(directory / "repo" / "gen3.sqlite3")
    try:
        uris = [uri for (uri,) in connection.execute("SELECT path FROM file_datastore_records")]
    finally:
        connection.close()
    paths = [unquote_to_bytes(urlsplit(uri).path) for uri in uris]
    return [os.path.relpath(path, bytes(directory / "storage")) for path in paths]


def _image(number: int) -> bytes:
    """Of a detector with this number."""
    return list(night(exposures=1, detectors=number, pixels=8))[-1].content


def _of_command(directory: Path) -> list[bytes]:
    paths = (directory / "index").read_bytes().split(b"\0")[:-1]
    return [os.path.relpath(path, bytes(directory / "storage")) for path in paths]


def _of_third_party(directory: Path) -> list[bytes]:
    lines = (directory / "index.jsonl").read_bytes().splitlines()
    return [os.fsencode(json.loads(line)["name"]) for line in lines]


def _command_environment(directory: Path) -> Mapping[str, str]:
    script = _STAND_IN.format(python=sys.executable, index=str(directory / "index"))
    return {"PATH": stand_in(directory, "ingest-them", script)}


def _third_party(source: Source) -> Kind:
    return Kind(
        source=source,
        config=lambda directory: {"path": str(directory / "index.jsonl")},
        names=_of_third_party,
        environment=lambda directory: {"PYTHONPATH": install(directory)},
    )


KINDS: Mapping[str, Kind] = {
    "null": Kind("null", lambda _: {}, lambda _: [], is_forgetful=True),
    "command": Kind(
        source="command",
        config=lambda _: {"run": "ingest-them {files}"},
        names=_of_command,
        environment=_command_environment,
        is_forgetful=True,
    ),
    "sqlite": Kind(
        source="sqlite",
        config=lambda directory: {"path": str(directory / "catalogue.db")},
        names=_of_sqlite,
    ),
    "butler": Kind(
        source="butler",
        config=lambda directory: {"repo": str(directory / "repo")},
        names=_of_butler,
        content=_image,
        suffix=b".fits",
        goes_by_headers=True,
    ),
    "entry point": _third_party("index"),
    "module and class": _third_party("observatory:IndexCatalogue"),
    "import and name": _third_party({"import": "observatory", "name": "IndexCatalogue"}),
}
"""All catalogues. One more is one more entry."""
