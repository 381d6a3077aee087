"""Catalogues for tests: requests to give them, one that misbehaves, and a third party's to be installed."""

import ctypes
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from common.files import Checksum, checksum
from endpoint.catalogues.contract import CatalogueError, Request, Result, Verdict

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

    Its configuration: `path`, that file; and `open`, what it does when it is opened.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        for key in config.keys() - {"path", "open"}:
            raise ValueError(f"{key}: not known")
        self._path = str(config["path"])
        self._open = str(config.get("open", ""))

    def open(self) -> None:
        self._do(self._open)
        with open(f"{self._path}.opened", "a") as file:
            file.write(f"{os.getpid()}\n")

    def ingest(self, requests: Sequence[Request]) -> Iterator[Result]:
        for request in requests:
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
                time.sleep(0.3)
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
