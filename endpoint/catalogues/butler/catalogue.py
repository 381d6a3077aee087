"""The catalogue `butler`: raw images, registered in a Butler repository where they lie in storage."""

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from endpoint.catalogues.butler.settings import Settings
from endpoint.catalogues.contract import CatalogueError, Request, Result, Verdict
from endpoint.catalogues.fits import FitsError

if TYPE_CHECKING:
    from endpoint.catalogues.butler.observation import Observer
    from endpoint.catalogues.butler.repository import RawFile, Repository

_PACKAGE = "lsst-daf-butler"
_INSTALL = "install its packages: pip install 'dbb-buffer-managers[butler]'"


class ButlerCatalogue:
    """A catalogue by the contract of `endpoint.catalogues.contract`.

    Butler's packages are slow to import, and only `open` does.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        self._settings = Settings.of(config)
        self._opened: tuple[Observer, Repository] | None = None

    def open(self) -> None:
        try:
            from astropy.utils.data import conf as downloads

            # Before all other imports: nothing unattended may wait for the Internet, where astropy would look
            # for leap seconds and for an observatory's place.
            downloads.allow_internet = False
            from endpoint.catalogues.butler.observation import Observer
            from endpoint.catalogues.butler.repository import Repository
        except ImportError as error:
            raise CatalogueError(f"the packages of Butler can't be imported: {error}", _INSTALL) from error
        self._opened = Observer(), Repository(self._settings)

    def close(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    def version(self) -> str:
        try:
            return f"{_PACKAGE} {version(_PACKAGE)}"
        except PackageNotFoundError:
            return f"{_PACKAGE} is not installed; {_INSTALL}"

    def ingest(self, requests: Sequence[Request]) -> Iterator[Result]:
        if self._opened is None:
            raise CatalogueError("the repository is not open")
        observer, repository = self._opened
        files: list[RawFile] = []
        for request in requests:
            read = _read(request, observer)
            if isinstance(read, Result):
                yield read
            else:
                files.append(read)
        while files:
            batch, files = _disjoint(files, repository)
            yield from repository.add(batch)


def _read(request: Request, observer: "Observer") -> "RawFile | Result":
    """What Butler has to know of a file, or why it can't be had."""
    from lsst.resources import ResourcePath

    from endpoint.catalogues.butler.observation import UntranslatableError
    from endpoint.catalogues.butler.repository import RawFile

    # A ResourcePath takes a bare path's `#` and `%` for a URI's.
    uri = ResourcePath(Path(os.fsdecode(request.path)).as_uri())
    if os.fsencode(uri.ospath) != request.path:
        return Result(request.id, Verdict.INVALID, "Butler can't name it: its path is no UTF-8")
    try:
        return RawFile(request.id, uri, observer.read(request.path))
    except (FitsError, UntranslatableError) as error:
        return Result(request.id, Verdict.INVALID, str(error))
    except OSError as error:
        return Result(request.id, Verdict.FAILED, f"it can't be read: {error.strerror or error}")


def _disjoint(files: "list[RawFile]", repository: "Repository") -> "tuple[list[RawFile], list[RawFile]]":
    """The files that share no dataset with one before them, and the others, which come after those."""
    batch: list[RawFile] = []
    later: list[RawFile] = []
    taken: set[object] = set()
    for file in files:
        ids = {ref.id for ref in repository.datasets(file)}
        (later if taken & ids else batch).append(file)
        taken |= ids
    return batch, later
